"""What the engine asks of a method: its loss, and what the loss is divided by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.engine.metrics import SumAndCount
from burnish.scoring.scores import CompletionScores


@dataclass(frozen=True, slots=True)
class MicroBatchLoss:
    """One micro-batch's share of the step's loss, and its metrics."""

    loss: Tensor
    """Scalar; the shares of a step's micro-batches add up to its loss."""
    metrics: dict[str, SumAndCount]


class Method(Protocol):
    """A training method: objective and metrics, as functions of scores."""

    name: str
    needs_reference: bool
    has_closed_start: bool
    """Whether the loss depends on differences from the reference alone, so that its value at the start is known."""

    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Count what each term of the loss is divided by, over all groups of a step (or of an evaluation)."""
        ...

    def loss(
        self,
        scores: CompletionScores,
        reference: CompletionScores | None,
        batch: MicroBatch,
        denominators: Mapping[str, float],
    ) -> MicroBatchLoss:
        """Compute a micro-batch's share of the loss, divided by the step's counts."""
        ...
