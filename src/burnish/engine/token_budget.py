"""The token budget of micro-batches by a short timing before step 1: how many tokens this device computes fastest.

Forward and backward passes of the policy over groups of the first step, for nothing: gradients are dropped, random
states put back, and neither optimizer, reference, cache nor method sees them. So a run with a budget that was found is,
bit for bit, the run that is told this budget.

Budgets double from the least one on for as long as that makes a token cheaper by a worthwhile share: time per token
falls with the size of matrix products and then levels out, while memory grows all the way.
"""

from __future__ import annotations

import gc
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.batching.layout import lay_out
from burnish.data.groups import PromptGroup
from burnish.device.clock import seconds_of
from burnish.device.memory import free_cached_memory, is_out_of_memory
from burnish.engine.cut import Cut
from burnish.engine.passes import Passes
from burnish.errors import BurnishError
from burnish.scoring.compute_copies import forget_compute_copies

LEAST_BUDGET = 512
"""Tokens of the smallest micro-batch that is tried."""
WORTH = 0.03
"""Share of the time per token that a budget of twice the memory must save."""
CALLS = 2
"""How often each candidate is computed; the faster call counts, for the first one meets cold caches."""
MOST_SECONDS = 20.0
"""No candidate begins that would end later, and no second call after one of a quarter of this."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A budget, and the micro-batch that it is timed with."""

    cut: Cut
    groups: tuple[PromptGroup, ...]
    row_sizes: tuple[int, ...] | None

    @property
    def budget(self) -> int:
        return self.cut.max_tokens

    @property
    def num_tokens(self) -> int:
        """Tokens that are no padding."""
        return _tokens(self.groups, self.cut)


@dataclass(frozen=True, slots=True)
class BudgetTiming:
    """What was timed, and how long it took."""

    rates: dict[int, float]
    """Budget → tokens a second of forward and backward passes; 0 where memory ran out."""
    best: int | None
    """The budget to take; None where memory ran out with each, or there was no time for a second one."""
    seconds: float

    def one_line(self) -> str:
        """Say what was found."""
        told = [f"{budget:,}: {f'{rate:,.0f}/s' if rate else 'out of memory'}" for budget, rate in self.rates.items()]
        chosen = "by formula, for want of two to compare"
        chosen = chosen if self.best is None else f"micro-batches of at most {self.best:,} tokens"
        return f"token budget: {chosen}, timed in {self.seconds:.1f} s ({', '.join(told)})"


def list_candidates(
    groups: Sequence[PromptGroup], *, most: int, cut_of: Callable[[int], Cut], num_ranks: int = 1
) -> list[Candidate]:
    """The budgets worth timing on the groups of a step, from the least to `most`; of those that cut alike, the largest.

    Each is timed with one micro-batch of typical groups, those nearest to the median length, so that the time per token
    tells of the micro-batch's size and not of its rows.

    Args:
        groups: of the first step, over all ranks.
        most: largest budget that memory holds, in tokens; ≥ 1.
        cut_of: gives the cut of a budget.
        num_ranks: processes that share a step.
    """
    budgets = [budget for budget in _doubled(min(LEAST_BUDGET, most)) if budget < most] + [most]
    lengths = np.array([_tokens([group], cut_of(most)) for group in groups])
    typical = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[: math.ceil(len(groups) / num_ranks)]
    ordered = [groups[int(number)] for number in typical]
    by_groups: dict[int, Candidate] = {}
    for budget in budgets:
        candidate = _fill(cut_of(budget), ordered)
        by_groups[len(candidate.groups)] = candidate
    return sorted(by_groups.values(), key=lambda candidate: candidate.budget)


def _fill(cut: Cut, groups: Sequence[PromptGroup]) -> Candidate:
    """A cut with as many of the first groups as make one micro-batch."""
    needs_more = lambda count: len(cut.plan(range(count), groups[:count]).micro_batches) > 1  # noqa: E731
    count = max(1, bisect_left(range(1, len(groups) + 1), True, key=needs_more))
    micro = cut.plan(range(count), groups[:count]).micro_batches[0]
    return Candidate(cut, tuple(groups[number] for number in micro.groups), micro.row_sizes)


def time_budgets(passes: Passes, candidates: Sequence[Candidate]) -> BudgetTiming:
    """Time candidates, the smallest first, until a larger one saves too little; all ranks find the same.

    A rank counts as the slowest does, and where memory runs out on one, the candidate is out.
    """
    rates: dict[int, float] = {}
    spent, best, best_rate, is_late = 0.0, None, 0.0, False
    for candidate in candidates:
        if best_rate and spent + CALLS * candidate.num_tokens / best_rate > MOST_SECONDS:
            is_late = True
            break
        passes.beat("timing micro-batches")
        fastest, total = passes.ranks.agree(_time(passes, candidate))
        spent += total if math.isfinite(total) else 0.0
        rate = candidate.num_tokens / fastest
        rates[candidate.budget] = rate
        if rate * (1 - WORTH) <= best_rate:
            break
        best, best_rate = candidate.budget, rate
    forget_compute_copies(trainable_only=True)
    return BudgetTiming(rates, None if is_late and len(rates) == 1 else best, spent)


def _time(passes: Passes, candidate: Candidate) -> list[float]:
    """Seconds of the fastest call, and of all; infinite where memory runs out."""
    scorer = passes.accelerator.unwrap_model(passes.scorer)
    seconds: list[float] = []
    scorer.train()
    with passes.forked_rng():
        try:
            while len(seconds) < CALLS and sum(seconds) < MOST_SECONDS / 4:
                seconds.append(seconds_of(lambda: _compute(passes, scorer, candidate), passes.device))
        except Exception as error:
            if isinstance(error, BurnishError) or not is_out_of_memory(error):
                raise
            seconds = [math.inf]
    # Outside the except block: the traceback held the activations.
    scorer.zero_grad(set_to_none=True)
    if math.inf in seconds:
        gc.collect()
    free_cached_memory(passes.device)
    return [min(seconds), sum(seconds)]


def _compute(passes: Passes, scorer: Any, candidate: Candidate) -> None:
    """Forward and backward passes of a micro-batch; any sum of what is scored has the cost of any objective."""
    cut = candidate.cut
    batch = lay_out(
        candidate.groups, shared=cut.shared, pad_id=cut.pad_id, packed=cut.packed, row_sizes=candidate.row_sizes
    )
    scores = scorer(batch.to(passes.device))
    (scores.logps if scores.rewards is None else scores.rewards).sum().backward()


def _tokens(groups: Sequence[PromptGroup], cut: Cut) -> int:
    return sum(group.num_tree_tokens if cut.shared else group.num_tokens for group in groups)


def _doubled(least: int) -> list[int]:
    return [least * 2**power for power in range(24)]
