"""What the losses of a step's micro-batches must know of the whole step, found out with as few passes as may be.

A step whose groups depend on each other (engine.coupling) or whose experts are balanced is scored before its losses are
taken. Those scores serve twice wherever nothing has to be forgotten in between: in evaluation always, in training where
the step is one micro-batch. Otherwise they are made without gradient, under the random numbers that the step's own
passes will draw.

Completions that only couple the step (KTO's mismatched ones) then stand in the same tree rows as the step's own, so
that no prompt is computed twice. Where the step is cut, that is so for the reference alone: the policy's pass without
gradient cannot serve the backward passes that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.batching.planner import MicroBatchPlan, StepPlan
from burnish.data.groups import PromptGroup
from burnish.engine.balancing import RoutingTotal, StepRouting
from burnish.engine.coupling import Coupling, CouplingTable
from burnish.engine.memory_retry import Attempt
from burnish.engine.method import Scored, StepPart
from burnish.models.cached_reference import counted_sizes
from burnish.scoring.scores import CompletionScores, sum_by_completion

if TYPE_CHECKING:
    from burnish.engine.passes import Passes

_OWN, _OTHER = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class StepFacts:
    """What the losses of a step's micro-batches must know first."""

    value: Any = None
    """What `couple` gave, or None."""
    routing: StepRouting | None = None
    """How a mixture-of-experts model routed the step's tokens, where its balancing loss is wanted."""
    scored: Scored | None = None
    """The scores of the step's only micro-batch, with gradient, where they had to be known first."""


class WholeStep:
    """One try at scoring what couples a step (or an evaluation)."""

    def __init__(
        self,
        passes: Passes,
        coupling: Coupling | None,
        group_of: Callable[[int], PromptGroup],
        denominators: Mapping[str, float],
        attempt: Attempt,
    ) -> None:
        self.passes = passes
        self.coupling = coupling
        self.group_of = group_of
        self.denominators = denominators
        self.attempt = attempt
        self.routing = RoutingTotal()
        self._table = CouplingTable(0 if coupling is None else len(coupling.groups))

    @property
    def joins(self) -> bool:
        """Whether completions that couple the step go into the rows of its own.

        Not where rows hold one completion each, for nothing is saved then; nor where experts are balanced: the step's
        own tokens alone are to be counted.
        """
        is_other = self.coupling is not None and not self.coupling.is_own
        return is_other and self.passes.cut.shared and self.passes.router_coefficient == 0

    def plan(self, indices: Sequence[int], groups: Sequence[PromptGroup]) -> StepPlan:
        """This rank's micro-batches of what `score` computes."""
        if self.joins:
            groups = [self._joined(index) for index in indices]
        return self.passes.cut.plan(indices, groups, self.passes.ranks)

    def before_training(self, plan: StepPlan, indices: Sequence[int], groups: Sequence[PromptGroup]) -> StepFacts:
        """What the step's losses must know, and the scores of its only micro-batch where that was enough.

        Args:
            plan: this rank's micro-batches of the step.
            indices: of the step's groups, over all ranks.
            groups: these groups.
        """
        routes, coupling = self.passes.router_coefficient > 0, self.coupling
        if not (routes or coupling):
            return StepFacts()
        is_alone = len(plan.micro_batches) == 1 and self.passes.ranks.size == 1
        joined = self.plan(indices, groups).micro_batches if self.joins and is_alone else ()
        if len(joined) == 1:
            scored = self._score_guarded(replace(joined[0], groups=plan.micro_batches[0].groups))
            return replace(self.facts(), scored=scored)
        if coupling is not None and not coupling.is_own:
            self._score_others(coupling, indices, groups)
        scored = None
        if routes or (coupling is not None and coupling.is_own):
            scored = self._score_own(plan, keeps=is_alone)
        return replace(self.facts(), scored=scored)

    def before_evaluating(self, indices: Sequence[int], groups: Sequence[PromptGroup]) -> bool:
        """Score what cannot be scored together with the evaluation's own groups; whether these couple each other."""
        if self.coupling is None:
            return False
        if self.coupling.is_own or self.joins:
            return True
        self._score_others(self.coupling, indices, groups)
        return False

    def facts(self) -> StepFacts:
        """What the whole step says; every rank calls it, after all its scores."""
        self.attempt.agree()
        value, reduce = None, self.passes.sum_table
        if self.coupling is not None:
            value = self.coupling.method.couple(self._table.gather(reduce), self.denominators)
        routing = self.routing.gather(reduce) if self.passes.router_coefficient > 0 else None
        return StepFacts(value, routing)

    def part(self, value: Any, indices: Sequence[int]) -> StepPart | None:
        """What the loss of a micro-batch of these groups is told; None where nothing couples them."""
        return None if self.coupling is None else self.coupling.part(value, indices, self.passes.device)

    def score(self, micro: MicroBatchPlan) -> Scored:
        """Score a micro-batch of the step, and note what it says of what couples it."""
        coupling = self.coupling
        if coupling is None:
            return self.passes.score([self.group_of(index) for index in micro.groups], micro)
        rows = coupling.rows(micro.groups, self.passes.device)
        own = [self.group_of(index) for index in micro.groups]
        if not self.joins:
            scored = self.passes.score(own, micro)
            if coupling.is_own:
                self._put(coupling, rows, scored, micro)
            return scored
        both = self.passes.score([self._joined(index) for index in micro.groups], micro)
        others = [coupling.groups[coupling.places[index]] for index in micro.groups]
        self._put(coupling, rows, self._part(both, _OTHER, others), micro)
        return self._part(both, _OWN, own)

    def _each(self, plan: StepPlan, compute: Callable[[MicroBatchPlan], object]) -> None:
        """Compute the micro-batches of a plan until one does not fit."""
        for micro in plan.micro_batches:
            if self.attempt.has_failed:
                return
            with self.attempt.guard(micro, self.group_of):
                compute(micro)

    def _score_guarded(self, micro: MicroBatchPlan) -> Scored | None:
        with self.attempt.guard(micro, self.group_of):
            return self.score(micro)
        return None

    def _score_own(self, plan: StepPlan, *, keeps: bool) -> Scored | None:
        """Score the step's own groups for what couples them; a single micro-batch's scores, with gradient, are kept."""
        passes = self.passes
        with nullcontext() if keeps else passes.forked_rng(), nullcontext() if keeps else torch.no_grad():
            for micro in plan.micro_batches:
                if self.attempt.has_failed:
                    break
                scored = self._score_guarded(micro)
                if scored is None:
                    continue
                self.routing.add(scored.scores.routing, is_filler=micro.is_filler)
                if keeps:
                    return scored
        return None

    @torch.no_grad()
    def _score_others(self, coupling: Coupling, indices: Sequence[int], groups: Sequence[PromptGroup]) -> None:
        """Score coupled groups in rows of their own; the reference before, in rows with the step's own beside them.

        At the start of a run the reference computes what the policy does, row by row, so that rewards are exactly 0.
        """
        passes, others = self.passes, dict(zip(indices, coupling.groups, strict=True)).__getitem__

        def ask_reference(micro: MicroBatchPlan) -> None:
            passes.ask_reference([self._joined(index) for index in micro.groups], micro)

        def score(micro: MicroBatchPlan) -> None:
            scored = passes.score([others(index) for index in micro.groups], micro)
            self._put(coupling, coupling.rows(micro.groups, passes.device), scored, micro)

        if self.joins and passes.reference is not None and passes.at_start is None:
            self._each(self.plan(indices, groups), ask_reference)
        with passes.forked_rng():
            self._each(passes.cut.plan(indices, coupling.groups, passes.ranks), score)

    @torch.no_grad()
    def _put(self, coupling: Coupling, rows: Tensor, scored: Scored, micro: MicroBatchPlan) -> None:
        values = coupling.method.coupling_row(scored)
        # The rows of a filler are another rank's to write, or have been written.
        self._table.put(rows[:0], values[:0]) if micro.is_filler else self._table.put(rows, values)

    def _joined(self, index: int) -> PromptGroup:
        """A group of the step with the completion that couples it beside its own."""
        assert self.coupling is not None
        own, other = self.group_of(index), self.coupling.groups[self.coupling.places[index]]
        return replace(
            own,
            completion_ids=own.completion_ids + other.completion_ids,
            completion_mask=own.completion_mask + other.completion_mask,
            token_weights=None,
            ref_logps=None,
        )

    def _part(self, both: Scored, place: int, groups: Sequence[PromptGroup]) -> Scored:
        """The step's own completions of joined groups, or the others, with the micro-batch that `groups` make."""
        batch = self.passes.lay_out(groups)
        sizes = [size for group in both.batch.groups for size in counted_sizes(group)]
        tokens = np.flatnonzero(np.repeat(np.arange(len(sizes)) % 2 == place, sizes))
        index = torch.from_numpy(tokens).to(self.passes.device)
        reference = None if both.reference is None else _select(both.reference, index, place, batch)
        return Scored(batch, _select(both.scores, index, place, batch), reference)


def _select(scores: CompletionScores, tokens: Tensor, place: int, batch: MicroBatch) -> CompletionScores:
    """Every second completion's scores.

    Args:
        scores: of groups of two completions.
        tokens: (counted of `batch`,) which counted tokens are theirs.
        place: 0 for the first of each two, 1 for the second.
        batch: of these completions alone. Sums are taken anew as it lays them out, so that they round as they would
            have alone.
    """
    by_token = ("entropies", "correct", "log_sum_squares", "mean_logps", "log_normalizers")
    selected = {
        name: value.index_select(0, tokens) for name in by_token if (value := getattr(scores, name)) is not None
    }
    token_logps = scores.token_logps.index_select(0, tokens)
    return CompletionScores(
        token_logps=token_logps,
        logps=sum_by_completion(token_logps, batch),
        mean_logit_sums=scores.mean_logit_sums[place::2],
        prompt_logps=scores.prompt_logps,
        **selected,
    )
