"""Evaluation: the same passes without gradients, over all held-out groups as one sum."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from burnish.console import progress
from burnish.data.groups import PromptGroup
from burnish.engine.memory_retry import within_memory
from burnish.engine.metrics import MetricSums
from burnish.engine.passes import Passes


class Evaluation:
    """Held-out groups, planned once."""

    def __init__(self, groups: Sequence[PromptGroup], *, batch_size: int) -> None:
        """Keep the groups.

        Args:
            groups: at least one.
            batch_size: per_device_eval_batch_size, which eval_steps_per_second is counted in.
        """
        self.groups = list(groups)
        self.batch_size = batch_size

    def run(self, passes: Passes, *, gives_up: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Give the record with `eval_` before each metric; its loss has the evaluation set's own denominators.

        None where `gives_up`, asked before every micro-batch, ended it.
        """
        started = time.perf_counter()
        denominators = passes.method.denominators(self.groups)
        with progress("evaluating", total=len(self.groups), unit="groups") as advance:

            def attempt() -> tuple[MetricSums, bool]:
                sums = MetricSums()
                return sums, passes.evaluate(self.groups, denominators, sums, advance, gives_up)

            sums, finished = within_memory(passes, attempt)
        if not finished:
            return None
        means = passes.method.derive(sums.take_means(passes.ranks))
        seconds = time.perf_counter() - started
        return {
            "eval_loss": means.pop("loss"),
            "eval_runtime": seconds,
            "eval_samples_per_second": len(self.groups) / seconds,
            "eval_steps_per_second": math.ceil(len(self.groups) / self.batch_size) / seconds,
            **{f"eval_{name}": value for name, value in means.items()},
        }
