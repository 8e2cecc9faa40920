"""Which evaluation was the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from burnish.errors import ConfigError


@dataclass(slots=True)
class BestMetric:
    """Follows one evaluation metric."""

    name: str
    """With eval_ before it."""
    greater_is_better: bool
    keeps_checkpoint: bool
    """Whether an improvement writes a checkpoint, so that the best model can be loaded at the end."""
    value: float | None = None
    step: int | None = None

    def update(self, record: Mapping[str, float], step: int) -> bool:
        """Take an evaluation's record; say whether it is better than all before.

        Raises:
            ConfigError: the record has no such metric; names those that it has.
        """
        if self.name not in record:
            raise ConfigError(f"--metric_for_best_model {self.name}: evaluation gives {', '.join(sorted(record))}.")
        value = record[self.name]
        if math.isnan(value):
            return False
        better = self.value is None or (value > self.value if self.greater_is_better else value < self.value)
        if better:
            self.value, self.step = value, step
        return better


def build_best_metric(name: str | None, greater_is_better: bool | None, *, keeps_checkpoint: bool) -> BestMetric:
    """Resolve transformers' defaults: eval_loss; greater is better unless the name ends in loss."""
    full = name or "loss"
    full = full if full.startswith("eval_") else f"eval_{full}"
    greater = not full.endswith("loss") if greater_is_better is None else greater_is_better
    return BestMetric(full, greater, keeps_checkpoint)
