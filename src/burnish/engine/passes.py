"""Passes over the groups of a step or an evaluation: micro-batches through reference, policy and objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch, lay_out
from burnish.batching.planner import MicroBatchPlan
from burnish.data.groups import PromptGroup
from burnish.device.ranks import Ranks
from burnish.engine.balancing import RoutingTotal, StepRouting
from burnish.engine.coupling import find_coupling
from burnish.engine.cut import Cut
from burnish.engine.memory_retry import Attempt, Overflow
from burnish.engine.method import Method, MicroBatchLoss, Scored, StepPart
from burnish.engine.metrics import MetricSums, scalar
from burnish.engine.whole_step import StepFacts, WholeStep
from burnish.models.cached_reference import CachedReference
from burnish.scoring.compute_copies import forget_compute_copies
from burnish.scoring.scores import CompletionScores

GroupOf = Callable[[int], PromptGroup]
"""Gives a group by its index in the store."""


class StartCheck(Protocol):
    """Looks at the first micro-batch, and raises where it is not what the mathematics says."""

    def __call__(self, scored: Scored, outcome: MicroBatchLoss, denominators: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class TrainedStep:
    """What the method's running state takes in from a step."""

    value: Any
    """What `couple` gave for it, or None."""
    statistics: Tensor | None
    """Sum of this rank's micro-batches' statistics, or None."""


@dataclass(slots=True, eq=False)
class _StepInWork:
    """What the micro-batches of one attempt at a step share."""

    whole: WholeStep
    sums: MetricSums
    facts: StepFacts
    statistics: Tensor | None = None


def _ignore(_: object) -> None:
    """Tell nobody."""


def _stay() -> None:
    """Put nothing back."""


@dataclass(slots=True)
class Passes:
    """What both training and evaluation do with a plan."""

    method: Method
    scorer: Any
    """The policy's Scorer, or a wrapper around it that hooks forward and backward."""
    reference: CachedReference | None
    accelerator: Any
    device: torch.device
    cut: Cut
    ranks: Ranks = field(default_factory=Ranks)
    at_start: StartCheck | None = None
    """Sees the first training micro-batch of a fresh run, then is forgotten."""
    router_coefficient: float = 0.0
    """Weight of the balancing loss of a mixture-of-experts model; 0 computes none."""
    forked_rng: Callable[[], AbstractContextManager[None]] = nullcontext
    """A block in which drawing random numbers does not move the run's generators."""

    mark_rng: Callable[[], Callable[[], None]] = lambda: _stay
    """Remembers where the generators stand; what it returns puts them back."""
    beat: Callable[[str], None] = _ignore
    """Told of every micro-batch, as a sign of life."""
    when_smaller: Callable[[Overflow], None] = _ignore
    """Told when memory ran out and `cut` has become smaller."""

    def train(
        self,
        indices: Sequence[int],
        groups: Sequence[PromptGroup],
        denominators: Mapping[str, float],
        sums: MetricSums,
    ) -> TrainedStep:
        """Add the gradients of a step's groups, given with their indices; ranks exchange them at the last micro-batch.

        Nothing but gradients, sums and caches changes: what it returns goes to `advance` if the step is taken.

        Raises:
            DoesNotFit: out of memory on this rank or another; gradients and sums are then worthless.
        """
        forget_compute_copies(trainable_only=True)
        plan, group_of = self.cut.plan(indices, groups, self.ranks), dict(zip(indices, groups, strict=True)).__getitem__
        coupling, attempt = find_coupling(self.method, indices, groups), self._attempt()
        whole = WholeStep(self, coupling, group_of, denominators, attempt)
        facts = whole.before_training(plan, indices, groups)
        step = _StepInWork(whole, sums, facts)
        *others, last = plan.micro_batches
        for micro in others:
            self._train_alone(step, micro, attempt)
        self._train_alone(step, last, attempt, is_last=True)
        attempt.agree()
        self._count_one_loss(sums)
        return TrainedStep(facts.value, step.statistics)

    def _attempt(self) -> Attempt:
        # With several ranks a forward or backward pass has collectives inside, which one rank cannot leave alone.
        return Attempt(self.ranks, can_start_over=self.ranks.size == 1)

    def _train_alone(
        self, step: _StepInWork, micro: MicroBatchPlan, attempt: Attempt, *, is_last: bool = False
    ) -> None:
        """Add a micro-batch's gradients to this rank's own, unless memory has run out before."""
        if attempt.has_failed:
            return
        quiet = nullcontext() if is_last else self.accelerator.no_sync(self.scorer)
        with attempt.guard(micro, step.whole.group_of), quiet:
            self._train_micro_batch(step, micro)

    def _train_micro_batch(self, step: _StepInWork, micro: MicroBatchPlan) -> None:
        self._backward(step, micro, self._forward(step, micro))

    def _forward(self, step: _StepInWork, micro: MicroBatchPlan) -> MicroBatchLoss:
        scored, step.facts = step.facts.scored, replace(step.facts, scored=None)
        scored = scored or self.score([step.whole.group_of(index) for index in micro.groups], micro)
        part = step.whole.part(step.facts.value, micro.groups)
        return self._balanced(self._outcome(scored, step.whole.denominators, part), scored, step.facts.routing)

    def _backward(self, step: _StepInWork, micro: MicroBatchPlan, outcome: MicroBatchLoss) -> None:
        # Wrappers average gradients over ranks; the loss is already divided by the count over all ranks.
        # A rank's filler has a backward pass, as others wait for it, and weighs nothing.
        self.accelerator.backward(outcome.loss * (0.0 if micro.is_filler else float(self.ranks.size)))
        self._add(step.sums, outcome, micro)
        weight = 0.0 if micro.is_filler else 1.0
        step.statistics = _added(step.statistics, outcome.statistics, weight=weight)

    @property
    def starts_at_reference(self) -> bool:
        """Whether rewards begin at 0."""
        return self.reference is not None and self.reference.starts_as_policy

    def advance(self, trained: TrainedStep) -> None:
        """Bring the method's running state up to date with a step that moves the weights; every rank calls it."""
        statistics = trained.statistics
        self.method.advance(trained.value, None if statistics is None else self.sum_table(statistics))

    @torch.no_grad()
    def evaluate(
        self,
        groups: Sequence[PromptGroup],
        denominators: Mapping[str, float],
        sums: MetricSums,
        advance: Callable[[int], None],
        gives_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Sum an evaluation's loss and metrics; nothing is differentiated and dropout is off.

        `gives_up` is asked before every micro-batch; False says that it ended the evaluation.

        Raises:
            DoesNotFit: as `train`; the scorer is left in eval mode.
        """
        self.scorer.eval()
        forget_compute_copies(trainable_only=True)
        attempt, indices = self._attempt(), range(len(groups))
        whole = WholeStep(self, find_coupling(self.method, indices, groups), groups.__getitem__, denominators, attempt)
        waits = whole.before_evaluating(indices, groups)
        facts = StepFacts() if waits else whole.facts()
        finished, waiting = True, list[tuple[MicroBatchPlan, Scored]]()
        for micro in whole.plan(indices, groups).micro_batches:
            if gives_up():
                finished = False
                break
            if attempt.has_failed:
                break
            with attempt.guard(micro, groups.__getitem__):
                scored = whole.score(micro)
                whole.routing.add(scored.scores.routing, is_filler=micro.is_filler)
                waiting.append((micro, scored))
                if not waits:
                    self._add_evaluated(sums, whole, facts, waiting)
                advance(len(micro.groups))
        if waits and finished:
            self._add_evaluated(sums, whole, whole.facts(), waiting)
        attempt.agree()
        self._add_whole_routing(sums, whole.routing)
        self._count_one_loss(sums)
        self.flush()
        self.scorer.train()
        return finished

    @torch.no_grad()
    def score_reference(
        self, indices: Sequence[int], groups: Sequence[PromptGroup], advance: Callable[[int], None]
    ) -> None:
        """Score groups with the reference alone, in the micro-batches that training or evaluation makes of them."""
        group_of, attempt = dict(zip(indices, groups, strict=True)).__getitem__, self._attempt()
        for micro in self.cut.plan(indices, groups, self.ranks).micro_batches:
            if attempt.has_failed:
                break
            self.beat("scoring the reference")
            with attempt.guard(micro, group_of):
                self.ask_reference([group_of(index) for index in micro.groups], micro)
                advance(len(micro.groups))
        attempt.agree()
        self.flush()

    def flush(self) -> None:
        """Bring what the reference said to the host and into all ranks' caches; called where a copy is made anyway."""
        if self.reference is not None:
            self.reference.exchange(self.ranks)

    def _balanced(self, outcome: MicroBatchLoss, scored: Scored, routing: StepRouting | None) -> MicroBatchLoss:
        """A micro-batch's loss with its share of the balancing loss."""
        if routing is None or scored.scores.routing is None:
            return outcome
        share = routing.share(scored.scores.routing)
        metrics = {**outcome.metrics, "aux_loss": (share.detach(), scalar(0.0, self.device))}
        return replace(outcome, loss=outcome.loss + self.router_coefficient * share, metrics=metrics)

    def _add_evaluated(
        self, sums: MetricSums, whole: WholeStep, facts: StepFacts, waiting: list[tuple[MicroBatchPlan, Scored]]
    ) -> None:
        """Sum the losses and metrics of micro-batches, and let them go."""
        for micro, scored in waiting:
            step = whole.part(facts.value, micro.groups)
            self._add(sums, self._outcome(scored, whole.denominators, step), micro)
        waiting.clear()

    def _add_whole_routing(self, sums: MetricSums, routing: RoutingTotal) -> None:
        """The balancing loss of an evaluation, which counts as training's does."""
        whole = routing.gather(self.sum_table)
        if whole is not None:
            loss, nothing = whole.whole() / self.ranks.size, scalar(0.0, self.device)
            sums.add({"loss": (self.router_coefficient * loss, nothing), "aux_loss": (loss, nothing)})

    def sum_table(self, values: Tensor) -> Tensor:
        """A tensor of each rank added up; every rank calls it with the same shape."""
        return self.ranks.sum(values)

    def sum_over_ranks(self, values: Sequence[Tensor | float]) -> list[float]:
        """Numbers of each rank added up, on the host; every rank calls it with as many."""
        packed = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=self.device) for value in values])
        return self.ranks.sum(packed).tolist()

    def loss_and_norm(self, loss: Tensor, grad_norm: Any) -> tuple[float, float]:
        """A step's loss over all ranks and its gradient norm, alike on every rank, in one copy to the host.

        The copy takes along what the reference has said.
        """
        total = self.ranks.sum(loss.to(torch.float32).reshape(1))
        is_given = type(grad_norm) is not Tensor  # wrappers give numbers, or tensors that lie on several ranks
        pending = None if self.reference is None else self.reference.pending()
        parts = [total, total if is_given else grad_norm.to(total).reshape(1)]
        values = torch.cat(parts if pending is None else [*parts, pending.to(total)]).cpu().numpy()
        if self.reference is not None and pending is not None:
            self.reference.settle(values[2:])
        return float(values[0]), float(grad_norm if is_given else values[1])

    def _add(self, sums: MetricSums, outcome: MicroBatchLoss, micro: MicroBatchPlan) -> None:
        if not micro.is_filler:
            sums.add({"loss": (outcome.loss, scalar(0.0, self.device)), **outcome.metrics})
            sums.add_extremes(outcome.extremes)

    def _count_one_loss(self, sums: MetricSums) -> None:
        """The shares of all micro-batches and ranks make one loss, and one balancing loss."""
        nothing, one = scalar(0.0, self.device), scalar(1.0 / self.ranks.size, self.device)
        sums.add({"loss": (nothing, one)} | ({"aux_loss": (nothing, one)} if self.router_coefficient else {}))

    def score(self, groups: Sequence[PromptGroup], micro: MicroBatchPlan) -> Scored:
        """Policy and reference on the groups of a micro-batch."""
        self.beat("a micro-batch")
        # Before the policy's forward, so that the reference's activations never meet the policy's graph.
        batch, reference = self._score_with_reference(groups, micro)
        with self.accelerator.autocast():  # a scorer in slices has no wrapper that would do it
            return Scored(batch, self.scorer(batch), reference)

    def ask_reference(self, groups: Sequence[PromptGroup], micro: MicroBatchPlan) -> None:
        """Let the reference score what it has not scored yet of the groups of a micro-batch, and keep it."""
        if self.reference is not None:
            self._score_with_reference(groups, micro)

    def _score_with_reference(
        self, groups: Sequence[PromptGroup], micro: MicroBatchPlan
    ) -> tuple[MicroBatch, CompletionScores | None]:
        batch = self.lay_out(groups, micro.row_sizes)
        if self.reference is None:
            return batch, None
        # KTO's mismatched completions are new in every epoch, and the rows' own are not; until the first step moves the
        # policy, it is compared on the same rows to the last bit.
        piecewise = self.method.scores_other_groups and self.at_start is None
        with self.accelerator.autocast():
            keep = not micro.is_filler
            return batch, self.reference.score(batch, groups, self.lay_out, keep=keep, piecewise=piecewise)

    def _outcome(self, scored: Scored, denominators: Mapping[str, float], step: StepPart | None) -> MicroBatchLoss:
        outcome = self.method.loss(scored, denominators, step)
        if self.at_start is not None and self.scorer.training:
            self.at_start(scored, outcome, denominators)
            self.at_start = None
        return outcome

    def lay_out(self, groups: Sequence[PromptGroup], row_sizes: Sequence[int] | None = None) -> MicroBatch:
        """The tensors of a micro-batch, on the device."""
        cut = self.cut
        batch = lay_out(groups, shared=cut.shared, pad_id=cut.pad_id, packed=cut.packed, row_sizes=row_sizes)
        return batch.to(self.device)


def _added(total: Tensor | None, more: Tensor | None, *, weight: float) -> Tensor | None:
    if more is None:
        return total
    more = more * weight
    return more.detach() if total is None else total + more.detach()
