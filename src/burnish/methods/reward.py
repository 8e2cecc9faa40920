"""Reward models: the settings.

Bradley-Terry on a scalar head; centering: Eisenstein et al., 2312.09244; margins: Touvron et al., 2307.09288.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from burnish.errors import ConfigError
from burnish.methods.config import MethodConfig, StageDefaults
from burnish.ranges import NOT_NEGATIVE, check_ranges


@dataclass(kw_only=True)
class RewardSettings:
    """What is the method's own."""

    center_rewards_coefficient: float | None = None
    """Weight of (chosen + rejected reward)², which draws rewards to 0 (arXiv 2312.09244); say 0.01; ≥ 0."""
    learning_rate: float = 1e-4
    """Peak learning rate; ≥ 0."""
    num_samples: int = 0
    """A reward model answers nothing: always 0."""


RANGES = {"center_rewards_coefficient": NOT_NEGATIVE}


@dataclass(kw_only=True)
class RewardConfig(RewardSettings, StageDefaults, MethodConfig):
    """All settings of `burnish reward`, flat, by TRL's names."""

    method: ClassVar[str] = "reward"

    def __post_init__(self) -> None:
        """Raise ConfigError for what is not allowed."""
        super().__post_init__()
        check_ranges(self, RANGES)
        if self.token_metrics:
            raise ConfigError("--token_metrics is not for reward models, which give one number a completion")
        if self.num_samples:
            raise ConfigError("--num_samples must be 0: a reward model answers nothing")
