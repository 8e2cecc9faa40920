"""Out of memory in a step or an evaluation: it starts over in smaller micro-batches, and the attempt leaves nothing.

Gradients, metric sums and random states are put back to where they were before the attempt, so that what follows is
what a run with the smaller budget would have done. With several ranks it is an error that says the budget to resume
with.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from burnish.batching.planner import MicroBatchPlan
from burnish.data.groups import PromptGroup
from burnish.device.memory import free_cached_memory, is_out_of_memory
from burnish.device.ranks import Ranks
from burnish.engine.metrics import MetricSums
from burnish.errors import BurnishError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from burnish.engine.passes import Passes, TrainedStep

Result = TypeVar("Result")

_NOTHING = float(-(2**53))
_MAX_CAUSE = 160


@dataclass(frozen=True, slots=True)
class Overflow:
    """What the ranks found out about an attempt that ran out of memory."""

    budget: int | None
    """Most tokens of a micro-batch that is to be tried next; None where only a single group failed."""
    row: int | None
    """Row of a group that did not fit alone, on any rank; None where only several together did not."""
    cause: str
    """The device's words on this rank, or that it was another."""


class DoesNotFit(Exception):  # noqa: N818 (a state that within_memory deals with)
    """An attempt ran out of memory on some rank; raised on all of them at the same place."""

    def __init__(self, overflow: Overflow) -> None:
        super().__init__(overflow.cause)
        self.overflow = overflow


@dataclass(slots=True)
class Attempt:
    """One try at a step's micro-batches on this rank."""

    ranks: Ranks = field(default_factory=Ranks)
    can_start_over: bool = True
    """False with several ranks: a micro-batch then has collectives that one rank cannot leave by itself."""
    _failed: tuple[MicroBatchPlan, int, str] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether this rank ran out of memory; it then computes no more, and waits in `agree`."""
        return self._failed is not None

    @contextmanager
    def guard(self, micro: MicroBatchPlan, group_of: Callable[[int], PromptGroup]) -> Iterator[None]:
        """Take note of a micro-batch that does not fit, instead of raising.

        Raises:
            OutOfMemoryError: it did not fit, and this run cannot start the step over.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, BurnishError) or not is_out_of_memory(error):
                raise
            row = group_of(micro.groups[0]).row
            if not self.can_start_over:
                raise OutOfMemoryError(
                    f"out of memory in a micro-batch of {micro.num_padded_tokens:,} tokens (row {row} and others) "
                    "on one of several ranks, which cannot start a step over by itself.\n"
                    f"Give --max_tokens_per_micro_batch {max(1, micro.num_padded_tokens // 2)} and resume."
                ) from error
            self._failed = micro, row, _first_line(error)

    def agree(self) -> None:
        """Find out whether any rank ran out of memory; every rank calls it at the same places.

        Raises:
            DoesNotFit: one did, maybe this one.
        """
        told = [_NOTHING, _NOTHING]
        if self._failed is not None:
            micro, row, _ = self._failed
            told = [_NOTHING, row] if len(micro.groups) == 1 else [-(micro.num_padded_tokens // 2), _NOTHING]
        budget, row = self.ranks.agree(told)
        if (budget, row) == (_NOTHING, _NOTHING):
            return
        cause = "on another rank" if self._failed is None else self._failed[2]
        self._failed = None
        raise DoesNotFit(
            Overflow(None if budget == _NOTHING else max(1, int(-budget)), None if row == _NOTHING else int(row), cause)
        )


def within_memory(passes: Passes, attempt: Callable[[], Result]) -> Result:
    """Call an attempt until it fits, each time in smaller micro-batches; ranks call it together.

    The first time that a single group fails, its memory may only have been in pieces: it is tried once more after the
    allocator's cache has been emptied.

    Raises:
        OutOfMemoryError: a single group does not fit; names its row.
    """
    put_back_rng = passes.mark_rng()
    tried_alone = False
    while True:
        try:
            return attempt()
        except DoesNotFit as fault:
            overflow = fault.overflow
        # Outside the except block: the traceback held the activations of the failed micro-batch.
        passes.scorer.zero_grad(set_to_none=True)
        gc.collect()
        free_cached_memory(passes.device)
        put_back_rng()
        if overflow.budget is None and tried_alone:
            raise OutOfMemoryError(
                f"row {overflow.row}: out of memory with this row alone ({overflow.cause}).\n"
                "Lower --max_length, add --gradient_checkpointing or --use_peft, or take a device with more memory."
            )
        tried_alone = overflow.budget is None
        if overflow.budget is not None:
            passes.cut = passes.cut.within(overflow.budget)
            passes.when_smaller(overflow)


def train_within_memory(
    passes: Passes, indices: Sequence[int], groups: Sequence[PromptGroup], denominators: Mapping[str, float]
) -> tuple[TrainedStep, MetricSums]:
    """Gradients of a step, as `Passes.train` gives them, and its sums; started over where memory ran out."""

    def attempt() -> tuple[TrainedStep, MetricSums]:
        sums = MetricSums()
        return passes.train(indices, groups, denominators, sums), sums

    return within_memory(passes, attempt)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:_MAX_CAUSE]
