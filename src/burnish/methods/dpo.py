"""Direct preference optimisation: the settings, and the glue between scores and objectives.

Paper: Rafailov et al., 2305.18290. Differs from TRL in how the work is done, not in the update: the prompt is computed
once for both completions, and only counted positions meet the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from burnish.data.settings import DataSettings, check_data_settings
from burnish.engine.settings import TrainingSettings, check_training_settings
from burnish.models.settings import AdapterSettings, ModelSettings, check_adapter_settings, check_model_settings
from burnish.ranges import POSITIVE, Range, check_ranges, setting_error


@dataclass(kw_only=True)
class DPOSettings:
    """What is the method's own."""

    beta: float = 0.1
    """Strength of the pull towards the reference, in 1/nats; > 0."""
    loss_type: list[str] = field(default_factory=lambda: ["sigmoid"])
    """One or several objectives: sigmoid, hinge, ipo."""
    loss_weights: list[float] | None = None
    """Weight of each objective in loss_type; None weighs each 1."""
    label_smoothing: float = 0.0
    """Share of pairs whose labels are taken to be flipped (cDPO), in [0, 0.5)."""


@dataclass(kw_only=True)
class DPOConfig(DPOSettings, DataSettings, ModelSettings, AdapterSettings, TrainingSettings):
    """All settings of `burnish dpo`, flat, by TRL's names."""

    def __post_init__(self) -> None:
        """Take a single name for a list of one, as TRL does, and raise ConfigError for what is not allowed."""
        if isinstance(self.loss_type, str):
            self.loss_type = [self.loss_type]
        if isinstance(self.report_to, str):
            self.report_to = [self.report_to]
        self.report_to = [name for name in self.report_to if name != "none"]
        check_dpo_settings(self)
        check_data_settings(self)
        check_model_settings(self)
        check_adapter_settings(self)
        check_training_settings(self)


LOSSES = ("sigmoid", "hinge", "ipo")

RANGES = {"beta": POSITIVE, "label_smoothing": Range(least=0, below=0.5)}


def check_dpo_settings(settings: DPOSettings) -> None:
    """Raise ConfigError for the first of the method's own settings that is out of range."""
    check_ranges(settings, RANGES)
    for name in settings.loss_type:
        if name not in LOSSES:
            raise setting_error(settings, "loss_type", f"must be of {', '.join(LOSSES)}")
    if not settings.loss_type or len(set(settings.loss_type)) < len(settings.loss_type):
        raise setting_error(settings, "loss_type", "names at least one objective, and each once")
    weights = settings.loss_weights
    if weights is not None and not all(math.isfinite(weight) for weight in weights):
        raise setting_error(settings, "loss_weights", "must be finite numbers")
    if weights is not None and len(weights) != len(settings.loss_type):
        raise setting_error(settings, "loss_weights", f"needs a weight for each of {', '.join(settings.loss_type)}")
