"""Which token budget a run takes: the one it is told, one by formula, or one that a timing before step 1 finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from burnish.console import notice
from burnish.device.memory import available_memory_bytes
from burnish.device.sharding import is_sharded
from burnish.engine.cut import Cut
from burnish.engine.loop import TrainingLoop, total_steps
from burnish.engine.token_budget import CALLS, Candidate, list_candidates, time_budgets
from burnish.models.estimate import estimate_memory
from burnish.scoring.self_check import ScoringChoice

if TYPE_CHECKING:
    from burnish.methods.session import Session

MOST_CPU_TOKENS = 4096
"""Tokens that a timing may find on the CPU, where memory holds them."""
MEMORY_SHARE = 0.5
"""Share of the free memory that the activations of a timed micro-batch may take on the CPU, by estimate."""
PAYS_BACK = 0.01
"""Greatest share of a run's tokens that may be computed for a timing."""


@dataclass(frozen=True, slots=True)
class BudgetChoice:
    """How the token budget comes about."""

    reason: str
    """For the plan."""
    candidates: Sequence[Candidate] = ()
    """What is to be timed before step 1; none where nothing is."""


def build_cut(config: Any, scoring: ScoringChoice, pad_id: int, max_tokens: int) -> Cut:
    """How steps are cut; rows that are packed on request have the longest example's length, within the budget."""
    fills = getattr(config, "packing", False) and scoring.shared and not scoring.packed
    row_tokens = min(config.max_length or max_tokens, max_tokens) if fills else None
    return Cut(scoring.shared, pad_id, max_tokens, scoring.packed, row_tokens)


def choose_budget(args: Any, session: Session) -> BudgetChoice:
    """Decide whether to time; never by a clock, so that a run is timed, or is not, each time it is started."""
    if session.asked_tokens is not None:
        return BudgetChoice("as asked")
    if args.deterministic:
        return BudgetChoice("by formula, as --deterministic asks")
    if is_sharded(session.model):
        return BudgetChoice("by formula, since weights are spread over ranks")
    if session.zero is not None:
        return BudgetChoice("by formula, since DeepSpeed sums what a timing would leave behind")
    groups, sampler = session.train.groups, session.sampler
    first = [groups[int(index)] for index in sampler.groups_of(0)]
    cut_of = partial(build_cut, args, session.scoring, session.tokenizer.pad_token_id)
    candidates = list_candidates(first, most=_most_tokens(session), cut_of=cut_of, num_ranks=session.ranks.size)
    if len(candidates) < 2:
        return BudgetChoice("by formula: no other one would cut a step otherwise")
    lengths = groups.tree_lengths if session.cut.shared else groups.num_tokens
    of_run = lengths.mean() * sampler.batch_size * total_steps(args, sampler)
    of_timing = CALLS * session.ranks.size * sum(candidate.num_tokens for candidate in candidates)
    if of_timing > PAYS_BACK * of_run:
        return BudgetChoice("by formula: the run is too short for a timing to pay back")
    return BudgetChoice("by formula, until a timing before step 1", candidates)


def find_budget(args: Any, session: Session, loop: TrainingLoop) -> None:
    """Time budgets where that pays, say what was found, and let the loop and run.yaml have it."""
    candidates = choose_budget(args, session).candidates
    if not candidates:
        return
    timing = time_budgets(loop.passes, candidates)
    notice(timing.one_line())
    for candidate in candidates:
        if candidate.budget == timing.best:
            loop.passes.cut = candidate.cut
            args.max_tokens_per_micro_batch = candidate.budget


def _most_tokens(session: Session) -> int:
    """Largest budget to time: the formula's on an accelerator; more on the CPU, where memory is there for it."""
    formula = session.cut.max_tokens
    if session.device.is_accelerator:
        return formula
    free = -session.ranks.agree([-available_memory_bytes(session.device)])[0] / session.ranks.local_size
    tokens = MOST_CPU_TOKENS
    while tokens > formula and _activation_bytes(session, tokens) > MEMORY_SHARE * free:
        tokens //= 2
    return tokens


def _activation_bytes(session: Session, tokens: int) -> int:
    dtype: torch.dtype = session.precision.dtype
    estimate = estimate_memory(session.model, tokens=tokens, row_tokens=1, compute_dtype=dtype)
    return estimate.activations + estimate.logits
