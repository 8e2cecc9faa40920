"""Single completions with a label (KTO and its kin): the settings.

Paper: Ethayarajh et al., 2402.01306. Differs from TRL in that rows may be shuffled and batches of any size: the KL
term's mismatched completions are those of the whole optimizer step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from burnish.methods.config import MethodConfig, StageDefaults
from burnish.models.settings import MovingReferenceSettings, ReferenceSettings, RouterSettings
from burnish.ranges import NOT_NEGATIVE, POSITIVE, check_choices, check_ranges


@dataclass(kw_only=True)
class KTOSettings:
    """What is the method's own."""

    beta: float = 0.1
    """Strength of the pull towards the reference, in 1/nats; > 0."""
    loss_type: Literal["kto", "apo_zero_unpaired", "bco"] = "kto"
    """kto compares rewards with the step's KL term, bco with the mean reward so far, apo_zero_unpaired with 0."""
    desirable_weight: float | None = None
    """Weight of desirable rows, ≥ 0; None takes the one nearest to 1 with which they weigh 1 to 4/3 of the others."""
    undesirable_weight: float = 1.0
    """Weight of undesirable rows; ≥ 0."""
    learning_rate: float = 1e-6
    """Peak learning rate; ≥ 0."""


RANGES = {"beta": POSITIVE, "desirable_weight": NOT_NEGATIVE, "undesirable_weight": NOT_NEGATIVE}


@dataclass(kw_only=True)
class KTOConfig(KTOSettings, MovingReferenceSettings, ReferenceSettings, StageDefaults, RouterSettings, MethodConfig):
    """All settings of `burnish kto`, flat, by TRL's names."""

    method: ClassVar[str] = "kto"

    def __post_init__(self) -> None:
        """Raise ConfigError for what is not allowed."""
        super().__post_init__()
        check_ranges(self, RANGES)
        check_choices(self, KTOSettings)
