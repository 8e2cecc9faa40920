"""Direct preference optimisation: the settings, and the glue between scores and objectives.

Paper: Rafailov et al., 2305.18290. Differs from TRL in how the work is done, not in the update: the prompt is computed
once for both completions, and only counted positions meet the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from burnish.data.settings import DataSettings
from burnish.engine.settings import TrainingSettings
from burnish.models.settings import AdapterSettings, ModelSettings


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
