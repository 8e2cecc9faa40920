"""Where a run stands and what is asked of it next, by the names of transformers' TrainerState and TrainerControl.

A run without callbacks needs no more; with transformers' own come its Trainer's utilities, and with them peft.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class RunState:
    """The fields of TrainerState that a loop keeps up to date."""

    epoch: float = 0
    global_step: int = 0
    max_steps: int = 0
    num_input_tokens_seen: int = 0
    log_history: list[dict[str, float]] = field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None

    def as_trainer_state(self) -> Any:
        """transformers.TrainerState with these values, and with this very history."""
        from transformers.trainer_callback import TrainerState

        return TrainerState(**{one.name: getattr(self, one.name) for one in fields(self)})


@dataclass(slots=True)
class RunControl:
    """The fields of TrainerControl that a loop reads."""

    should_training_stop: bool = False
    should_save: bool = False
    should_evaluate: bool = False
    should_log: bool = False
