"""The stopwatch of both sides: seconds of each optimizer step, and from the start of the process to the first one.

Imports neither TRL nor burnish, which call it in the same way.
"""

from __future__ import annotations

import resource
import sys
import time
from importlib.metadata import version
from typing import Any

from transformers import TrainerCallback


class Clock(TrainerCallback):
    """Seconds from the first micro-batch of a step to the end of its update."""

    def __init__(self, spawned: float) -> None:
        """Begin.

        Args:
            spawned: when the process was started, in seconds since the epoch.
        """
        self.spawned = spawned
        self.startup: float | None = None
        self.began = 0.0
        self.seconds: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Note the beginning; the first one ends the start-up."""
        if self.startup is None:
            self.startup = time.time() - self.spawned
        self.began = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the seconds of the step."""
        self.seconds.append(time.perf_counter() - self.began)

    def result(self, history: list[dict[str, Any]], packages: tuple[str, ...]) -> dict[str, Any]:
        """Return what a turn of training measured, from the trainer's log history."""
        steps = [record for record in history if "grad_norm" in record]
        return {
            "steps": [step | {"seconds": taken} for step, taken in zip(steps, self.seconds, strict=True)],
            "evals": [record for record in history if "eval_loss" in record],
            "startup_seconds": self.startup,
            **footprint(packages),
        }


def footprint(packages: tuple[str, ...]) -> dict[str, Any]:
    """Return peak resident memory in bytes, and the versions of what was measured."""
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in packages},
    }
