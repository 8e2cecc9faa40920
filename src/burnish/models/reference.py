"""Reference providers: who answers what the reference says of a micro-batch's completions."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import nn

from burnish.batching.layout import MicroBatch
from burnish.scoring.scorer import Scorer
from burnish.scoring.scores import CompletionScores


class ReferenceProvider(Protocol):
    """Scores micro-batches with the reference, without gradients."""

    def score(self, batch: MicroBatch) -> CompletionScores:
        """Score a micro-batch on the device."""
        ...


class FrozenReference:
    """A model of its own: a copy of the policy's start, or another model."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer.requires_grad_(False).eval()

    @torch.no_grad()
    def score(self, batch: MicroBatch) -> CompletionScores:
        """Score without gradients; the caller sets autocast as for the policy."""
        return self.scorer(batch)


class AdapterOffReference:
    """The policy with its adapter switched off (or switched to the adapter's own start): no second model in memory."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @torch.no_grad()
    def score(self, batch: MicroBatch) -> CompletionScores:
        """Score without gradients and without dropout; the policy's modes are put back."""
        was_training, sums_routing = self.scorer.training, self.scorer.sums_routing
        self.scorer.eval()
        self.scorer.sums_routing = False  # experts are balanced on what the policy routes
        try:
            with _reference_weights(self.scorer.model):
                return self.scorer(batch)
        finally:
            self.scorer.sums_routing = sums_routing
            self.scorer.train(was_training)


def copy_of_start(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Copy a model as it stands, in the same or another storage dtype."""
    return copy.deepcopy(model).to(dtype=dtype)


def _reference_weights(model: nn.Module) -> AbstractContextManager[None]:
    from burnish.models.adapters import reference_weights

    return reference_weights(model)  # pyright: ignore[reportArgumentType]
