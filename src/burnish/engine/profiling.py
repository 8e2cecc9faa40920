"""`--profile N`: the profiler follows the loop as a callback does."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import TrainerCallback

from burnish.device.profiler import StepProfiler


class ProfileSteps(TrainerCallback):
    """Tells a profiler where steps begin and end."""

    def __init__(self, profiler: StepProfiler) -> None:
        self.profiler = profiler

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.profiler.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.profiler.step()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.profiler.stop()
