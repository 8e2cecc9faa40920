"""Passes over the groups of a step or an evaluation: micro-batches through reference, policy and objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from burnish.batching.layout import MicroBatch, lay_out, row_shape
from burnish.batching.planner import MicroBatchPlan, StepPlan, plan_step
from burnish.data.groups import PromptGroup
from burnish.engine.method import Method, MicroBatchLoss
from burnish.engine.metrics import MetricSums, scalar
from burnish.models.cached_reference import CachedReference
from burnish.scoring.scores import CompletionScores

GroupOf = Callable[[int], PromptGroup]
"""Gives a group by its index in the store."""


class StartCheck(Protocol):
    """Looks at the first micro-batch, and raises where it is not what the mathematics says."""

    def __call__(
        self,
        scores: CompletionScores,
        reference: CompletionScores | None,
        batch: MicroBatch,
        outcome: MicroBatchLoss,
        denominators: Mapping[str, float],
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Cut:
    """How groups become rows: decided before step 1 and kept for the whole run."""

    shared: bool
    pad_id: int
    max_tokens: int

    def plan(self, indices: Sequence[int], groups: Sequence[PromptGroup]) -> StepPlan:
        """Plan micro-batches for groups, given with their indices in the store."""
        shapes = [
            row_shape(len(group.prompt_ids), [len(ids) for ids in group.completion_ids], shared=self.shared)
            for group in groups
        ]
        return plan_step(indices, shapes, self.max_tokens)


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
    at_start: StartCheck | None = None
    """Sees the first training micro-batch of a fresh run, then is forgotten."""

    def train(self, plan: StepPlan, group_of: GroupOf, denominators: Mapping[str, float], sums: MetricSums) -> None:
        """Add the gradients of a step's micro-batches; ranks exchange them with the last one."""
        last = plan.micro_batches[-1]
        num_ranks = self.accelerator.num_processes
        for micro in plan.micro_batches:
            with nullcontext() if micro is last else self.accelerator.no_sync(self.scorer):
                outcome = self._score(micro, group_of, denominators)
                # Wrappers average gradients over ranks; the loss is already divided by the count over all ranks.
                self.accelerator.backward(outcome.loss * num_ranks)
            self._add(sums, outcome)
        self._count_one_loss(sums)

    @torch.no_grad()
    def evaluate(
        self,
        plan: StepPlan,
        group_of: GroupOf,
        denominators: Mapping[str, float],
        sums: MetricSums,
        advance: Callable[[int], None],
    ) -> None:
        """Sum an evaluation's loss and metrics; nothing is differentiated and dropout is off."""
        self.scorer.eval()
        for micro in plan.micro_batches:
            outcome = self._score(micro, group_of, denominators)
            self._add(sums, outcome)
            advance(len(micro.groups))
        self._count_one_loss(sums)
        self.flush()
        self.scorer.train()

    def flush(self) -> None:
        """Bring what the reference said to the host and into its cache; called where a copy is made anyway."""
        if self.reference is not None:
            self.reference.flush()

    def _add(self, sums: MetricSums, outcome: MicroBatchLoss) -> None:
        sums.add({"loss": (outcome.loss, scalar(0.0, self.device)), **outcome.metrics})

    def _count_one_loss(self, sums: MetricSums) -> None:
        """The shares of all micro-batches and ranks make one loss."""
        sums.add({"loss": (scalar(0.0, self.device), scalar(1.0 / self.accelerator.num_processes, self.device))})

    def _score(self, micro: MicroBatchPlan, group_of: GroupOf, denominators: Mapping[str, float]) -> MicroBatchLoss:
        groups = [group_of(index) for index in micro.groups]
        batch = self._lay_out(groups)
        with self.accelerator.autocast():
            # Before the policy's forward, so that the reference's activations never meet the policy's graph.
            reference = None if self.reference is None else self.reference.score(batch, groups, self._lay_out)
        scores = self.scorer(batch)
        outcome = self.method.loss(scores, reference, batch, denominators)
        if self.at_start is not None and self.scorer.training:
            self.at_start(scores, reference, batch, outcome, denominators)
            self.at_start = None
        return outcome

    def _lay_out(self, groups: Sequence[PromptGroup]) -> MicroBatch:
        return lay_out(groups, shared=self.cut.shared, pad_id=self.cut.pad_id).to(self.device)
