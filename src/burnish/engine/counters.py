"""Where a run stands: what the loop counts, and what a checkpoint keeps of it as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Counters:
    """Where a run stands; everything here goes into a checkpoint."""

    step: int = 0
    """Optimizer steps done, skipped ones included."""
    num_tokens: int = 0
    """Tokens seen, the prompt once a completion (TRL's count)."""
    num_computed_tokens: int = 0
    """Tokens that the policy computed, padding excluded."""
    num_groups: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    """Steps skipped since the last one that moved the weights."""
    skipped_since_log: int = 0
    skipped_loss: float = 0.0
    """Loss of the last step that was skipped, as it was."""
    loss_spikes: int = 0
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the last good steps, which spikes are measured against."""
    health: dict[str, Any] = field(default_factory=dict)
    """State of the HealthWatch."""
    owes_evaluation: bool = False
    """Whether the evaluation after this step was given up because the run was asked to stop."""
    loss_sum: float = 0.0
    """Sum over logged intervals of mean loss x steps, for the summary's train_loss."""
    loss_steps: int = 0
    steps_since_log: int = 0
    grad_norm: float = 0.0
    learning_rate: float = 0.0

    def oddities(self) -> dict[str, float]:
        """How many steps of the run were skipped or spiked, where any was."""
        counts = {"skipped_steps": self.skipped_steps, "loss_spikes": self.loss_spikes}
        return {name: count for name, count in counts.items() if count}
