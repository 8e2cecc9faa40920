"""Supervised fine-tuning: the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from burnish.data.settings import CountingSettings
from burnish.errors import ConfigError
from burnish.methods.config import MethodConfig, StageDefaults
from burnish.models.settings import RouterSettings
from burnish.ranges import NOT_NEGATIVE, POSITIVE, PROBABILITY, check_choices, check_ranges


@dataclass(kw_only=True)
class SFTSettings:
    """What is the method's own."""

    loss_type: Literal["nll", "dft"] = "nll"
    """nll is maximum likelihood; dft scales each token's loss by its probability (arXiv 2508.05629)."""
    label_smoothing_factor: float = 0.0
    """Share of each token's target that is spread over the vocabulary; nll only; in [0, 1)."""
    z_loss_coef: float = 0.0
    """Weight of (log Σ e^logit)², which keeps logits from drifting (arXiv 2204.02311); say 1e-4; ≥ 0."""
    neftune_noise_alpha: float | None = None
    """Scale of uniform noise on the embeddings in training (arXiv 2310.05914); 5 to 15 in the paper; > 0."""
    packing: bool = False
    """Put several examples into a row, each seeing itself only: less padding for short rows, and the same update."""
    learning_rate: float = 2e-5
    """Peak learning rate; ≥ 0."""
    token_metrics: bool = True
    """Log entropy and mean_token_accuracy as well; costs another pass over the head's logits."""


RANGES = {"label_smoothing_factor": PROBABILITY, "z_loss_coef": NOT_NEGATIVE, "neftune_noise_alpha": POSITIVE}


@dataclass(kw_only=True)
class SFTConfig(SFTSettings, CountingSettings, StageDefaults, RouterSettings, MethodConfig):
    """All settings of `burnish sft`, flat, by TRL's names."""

    method: ClassVar[str] = "sft"

    def __post_init__(self) -> None:
        """Raise ConfigError for what is not allowed."""
        super().__post_init__()
        check_sft_settings(self)


def check_sft_settings(settings: SFTConfig) -> None:
    """Raise ConfigError for the first of the method's own settings that is out of range or meets one it excludes."""
    check_ranges(settings, RANGES)
    check_choices(settings, SFTSettings)
    if settings.label_smoothing_factor and settings.loss_type != "nll":
        raise ConfigError(
            f"--label_smoothing_factor is used by loss_type nll, and not by {settings.loss_type}; leave one of them out"
        )
    if settings.packing and settings.max_length is None:
        raise ConfigError("--packing needs --max_length: it is how many tokens a row of several examples may have")
