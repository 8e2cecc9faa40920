"""How a step's groups are cut into micro-batches: an invisible choice, since objectives are sums over the step."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class MicroBatchPlan:
    """Groups that are computed together."""

    groups: tuple[int, ...]
    """Indices into the group store."""
    num_rows: int
    length: int
    """Longest row, in tokens; every row is padded to it."""
    row_sizes: tuple[int, ...] | None = None
    """How many of the groups, in order, each row holds where rows are packed."""
    is_filler: bool = False
    """Computed with weight 0, for a rank that has nothing left while others have (see batching.ranks)."""

    @property
    def num_padded_tokens(self) -> int:
        return self.num_rows * self.length


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The micro-batches of one optimizer step (or of an evaluation)."""

    micro_batches: tuple[MicroBatchPlan, ...]

    @property
    def num_groups(self) -> int:
        return sum(len(micro.groups) for micro in self.micro_batches if not micro.is_filler)

    @property
    def num_padded_tokens(self) -> int:
        return sum(micro.num_padded_tokens for micro in self.micro_batches)


@dataclass(frozen=True, slots=True)
class RowShape:
    """What one group occupies in a micro-batch."""

    num_rows: int
    length: int


def plan_step(groups: Sequence[int] | np.ndarray, shapes: Sequence[RowShape], max_tokens: int) -> StepPlan:
    """Sort groups by row length and fill micro-batches up to a budget of tokens, padding included.

    Sorting keeps padding small: rows that are computed together have nearly one length. The longest come first, so
    that a budget that memory cannot hold fails at once. A group longer than the budget is a micro-batch of its own.

    Args:
        groups: indices into the group store, shape (groups,).
        shapes: rows and longest row of each of these groups, in the same order.
        max_tokens: most tokens (rows x longest row) of a micro-batch; ≥ 1.
    """
    by_length = sorted(range(len(groups)), key=lambda i: (-shapes[i].length, i))
    micro_batches: list[MicroBatchPlan] = []
    members: list[int] = []
    num_rows = length = 0
    for i in by_length:
        if members and (num_rows + shapes[i].num_rows) * length > max_tokens:
            micro_batches.append(MicroBatchPlan(tuple(members), num_rows, length))
            members, num_rows, length = [], 0, 0
        members.append(int(groups[i]))
        num_rows += shapes[i].num_rows
        length = max(length, shapes[i].length)
    if members:
        micro_batches.append(MicroBatchPlan(tuple(members), num_rows, length))
    return StepPlan(tuple(micro_batches))


def plan_packed_step(groups: Sequence[int] | np.ndarray, lengths: Sequence[int], max_tokens: int) -> StepPlan:
    """Cut groups into as few micro-batches as a budget allows, with nearly equal tokens in each; none is padded.

    The longest groups are dealt first, each into the micro-batch with the fewest tokens so far that still has room:
    equal loads keep the peak of memory at its least, and leave no small remainder that a device would idle on. The
    fullest micro-batch comes first, so that a budget that memory cannot hold fails at once.

    Args:
        groups: indices into the group store, shape (groups,).
        lengths: tokens of each of these groups, in the same order.
        max_tokens: most tokens of a micro-batch; ≥ 1. A longer group is a micro-batch of its own.
    """
    by_length = sorted(range(len(groups)), key=lambda i: (-lengths[i], i))
    num_bins = max(1, math.ceil(sum(lengths) / max_tokens))
    members: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [0] * num_bins
    for i in by_length:
        emptiest = min(range(len(loads)), key=loads.__getitem__)
        if members[emptiest] and loads[emptiest] + lengths[i] > max_tokens:
            emptiest = len(loads)
            members.append([])
            loads.append(0)
        members[emptiest].append(i)
        loads[emptiest] += lengths[i]
    order = sorted((b for b in range(len(loads)) if members[b]), key=lambda b: -loads[b])
    return StepPlan(
        tuple(MicroBatchPlan(tuple(int(groups[i]) for i in sorted(members[b])), 1, loads[b]) for b in order)
    )


def plan_filled_rows(
    groups: Sequence[int] | np.ndarray, lengths: Sequence[int], max_tokens: int, *, row_tokens: int
) -> StepPlan:
    """Put several groups into a row, and rows into micro-batches up to a budget of tokens.

    Args:
        groups: indices into the group store, shape (groups,).
        lengths: tokens of each, in the same order.
        max_tokens: most tokens of a micro-batch, as in plan_step.
        row_tokens: most tokens of a row of several groups; ≥ 1. A longer group has a row of its own.
    """
    rows = best_fit(lengths, row_tokens)
    totals = [sum(lengths[i] for i in row) for row in rows]
    plan = plan_step(range(len(rows)), [RowShape(1, total) for total in totals], max_tokens)
    return StepPlan(
        tuple(
            replace(
                micro,
                groups=tuple(int(groups[i]) for number in micro.groups for i in rows[number]),
                row_sizes=tuple(len(rows[number]) for number in micro.groups),
            )
            for micro in plan.micro_batches
        )
    )


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Fill bins, the longest first, each item into the fullest bin that it fits (best-fit decreasing).

    Args:
        lengths: of the items.
        capacity: most that a bin of several items holds; a longer item has a bin of its own.

    Returns:
        The items' numbers by bin, in the order in which bins were opened.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (what is left, bin), sorted
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        found = bisect_left(room, (lengths[item], -1))
        left, number = room.pop(found) if found < len(room) else (capacity, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        insort(room, (left - lengths[item], number))
    return bins
