"""Evaluation: the same passes without gradients, over all held-out groups as one sum."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from burnish.console import progress
from burnish.data.groups import PromptGroup
from burnish.engine.health import without_health
from burnish.engine.memory_retry import within_memory
from burnish.engine.metrics import MetricSums
from burnish.engine.passes import Passes


class Evaluation:
    """Held-out groups, planned once."""

    def __init__(self, groups: Sequence[PromptGroup], *, batch_size: int, name: str = "") -> None:
        """Keep the groups.

        Args:
            groups: at least one.
            batch_size: per_device_eval_batch_size, which eval_steps_per_second is counted in.
            name: stands in the metrics' names, as in eval_NAME_loss; empty for the only set.
        """
        self.prefix = f"eval_{name}_" if name else "eval_"
        self.groups = list(groups)
        self.batch_size = batch_size

    def run(self, passes: Passes, *, gives_up: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Give the record with the prefix before each metric; its loss has the evaluation set's own denominators.

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
        means = without_health(passes.method.derive(sums.take_means(passes.ranks)))
        seconds = time.perf_counter() - started
        record = {
            "loss": means.pop("loss"),
            "runtime": seconds,
            "samples_per_second": len(self.groups) / seconds,
            "steps_per_second": math.ceil(len(self.groups) / self.batch_size) / seconds,
            **means,
        }
        return {f"{self.prefix}{name}": value for name, value in record.items()}


class EvaluationSets:
    """The sets of held-out groups, each with metrics of its own."""

    def __init__(self, sets: Sequence[Evaluation]) -> None:
        """Keep the sets; at least one."""
        self.sets = list(sets)

    @property
    def groups(self) -> list[PromptGroup]:
        """The groups of all sets."""
        return [group for one in self.sets for group in one.groups]

    def run(self, passes: Passes, *, gives_up: Callable[[], bool] = lambda: False) -> list[dict[str, float]] | None:
        """Give each set's record in order; None where `gives_up` ended one of them."""
        records: list[dict[str, float]] = []
        for one in self.sets:
            record = one.run(passes, gives_up=gives_up)
            if record is None:
                return None
            records.append(record)
        return records
