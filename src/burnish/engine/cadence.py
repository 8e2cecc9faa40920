"""When to log, evaluate and save."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cadence:
    """Every so many steps, at the end of epochs, or never."""

    strategy: str
    """no, steps, epoch (or best, which no step is due for)."""
    interval: int
    steps_per_epoch: int

    def is_due(self, step: int) -> bool:
        """Whether it is due after `step` steps (from 1)."""
        if self.strategy == "steps":
            return step % self.interval == 0
        return self.strategy == "epoch" and step % self.steps_per_epoch == 0

    def count_between(self, done: int, total: int) -> int:
        """How many steps are due after `done` and up to `total`."""
        if self.strategy not in ("steps", "epoch"):
            return 0
        interval = self.interval if self.strategy == "steps" else self.steps_per_epoch
        return total // interval - done // interval


def build_cadence(strategy: str, interval: float, *, total_steps: int, steps_per_epoch: int) -> Cadence:
    """Resolve an interval in (0, 1) as a share of all steps, rounded up."""
    steps = math.ceil(interval * total_steps) if 0 < interval < 1 else int(interval)
    return Cadence(strategy, max(1, steps), steps_per_epoch)
