"""How a step's groups are divided over ranks: by tokens, and into as many micro-batches on each.

Every rank computes the whole division from the same numbers, so that ranks agree without a word. Sharded parameters are
gathered once a micro-batch, by all ranks together: one micro-batch more on one rank would wait for ever.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from burnish.batching.planner import MicroBatchPlan, StepPlan


def plan_ranks(
    groups: Sequence[int] | np.ndarray, tokens: Sequence[int], plan: Callable[[Sequence[int]], StepPlan], num_ranks: int
) -> tuple[StepPlan, ...]:
    """Give each rank its micro-batches of a step; all ranks have equally many.

    The largest groups are dealt first, each to the rank with the fewest tokens so far: the fullest rank then has at
    most 4/3 of the least possible (Graham 1969, "Bounds on multiprocessing timing anomalies", theorem 2). A rank with
    fewer micro-batches than another cuts its largest in two; one with too few groups for that computes the step's
    smallest group once more with weight 0.

    Args:
        groups: indices into the group store, of all ranks' groups; each once.
        tokens: that each of them costs.
        plan: cuts some of the groups into micro-batches.
        num_ranks: ≥ 1.
    """
    tokens_of = {int(group): int(number) for group, number in zip(groups, tokens, strict=True)}
    plans = [list(plan(own).micro_batches) for own in _deal(tokens_of, num_ranks)]
    smallest = min(tokens_of, key=lambda group: (tokens_of[group], group))
    filler = replace(plan([smallest]).micro_batches[0], is_filler=True)
    while len({len(micro_batches) for micro_batches in plans}) > 1:
        count = max(len(micro_batches) for micro_batches in plans)
        plans = [_grown(micro_batches, count, plan, filler) for micro_batches in plans]
    return tuple(StepPlan(tuple(micro_batches)) for micro_batches in plans)


def _deal(tokens_of: Mapping[int, int], num_ranks: int) -> list[list[int]]:
    """Groups of each rank, in the step's order."""
    place_of = {group: place for place, group in enumerate(tokens_of)}
    loads = [(0, rank) for rank in range(num_ranks)]
    members: list[list[int]] = [[] for _ in range(num_ranks)]
    for group in sorted(tokens_of, key=lambda group: (-tokens_of[group], place_of[group])):
        load, rank = heapq.heappop(loads)
        members[rank].append(group)
        heapq.heappush(loads, (load + tokens_of[group], rank))
    return [sorted(own, key=place_of.__getitem__) for own in members]


def _grown(
    micro_batches: list[MicroBatchPlan], count: int, plan: Callable[[Sequence[int]], StepPlan], filler: MicroBatchPlan
) -> list[MicroBatchPlan]:
    while len(micro_batches) < count:
        divisible = [micro for micro in micro_batches if len(micro.groups) > 1]
        if not divisible:
            return micro_batches + [filler] * (count - len(micro_batches))
        largest = max(divisible, key=lambda micro: micro.num_padded_tokens)
        middle, place = len(largest.groups) // 2, micro_batches.index(largest)
        halves = (largest.groups[:middle], largest.groups[middle:])
        micro_batches[place : place + 1] = [micro for half in halves for micro in plan(half).micro_batches]
    return micro_batches
