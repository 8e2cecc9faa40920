"""A reference whose log-probabilities stand in the rows: no reference model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.models.cached_reference import CachedReference
from burnish.models.logp_store import LogpStore
from burnish.scoring.scores import CompletionScores


class GivenReference(CachedReference):
    """Answers from the rows' `ref_chosen_logps` and `ref_rejected_logps`, which are sums over whole completions."""

    def __init__(self) -> None:
        super().__init__(None, LogpStore(None), starts_as_policy=False)

    def score(
        self,
        batch: MicroBatch,
        groups: Sequence[PromptGroup],
        lay_out: Callable[[list[PromptGroup]], MicroBatch],
        *,
        keep: bool = True,
        piecewise: bool = False,
    ) -> CompletionScores:
        """Score a micro-batch; there are no values of single tokens."""
        logps = [logp for group in groups for logp in group.ref_logps or ()]
        values = torch.tensor(logps, dtype=torch.float32, device=batch.weight.device)
        return CompletionScores(torch.zeros_like(values[:0]), values, torch.zeros_like(values))
