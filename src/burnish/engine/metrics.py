"""Metrics as sums and counts on the device, brought to the host once a logging interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.device.ranks import Ranks
from burnish.objectives.health import PREFIX as HEALTH
from burnish.scoring.scores import CompletionScores

SumAndCount = tuple[Tensor, Tensor]
"""Sum over some items and their number, both scalars on the device."""


class MetricSums:
    """Exact means over a logging interval and all ranks, never means of micro-batch means."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._extremes: dict[str, Tensor] = {}

    def add_extremes(self, values: Mapping[str, Tensor]) -> None:
        """Keep the least of what is called `min_…` and the greatest of what is called `max_…`."""
        for name, value in values.items():
            held = self._extremes.get(name, value)
            self._extremes[name] = _extreme(name, torch.stack([held, value.detach()])).float()

    def add(self, metrics: Mapping[str, SumAndCount]) -> None:
        """Add sums and counts by name; no host copy."""
        for name, (total, count) in metrics.items():
            pair = torch.stack([total.detach().float(), count.detach().float()])
            held = self._sums.get(name)
            self._sums[name] = pair if held is None else held + pair

    def total(self, name: str) -> Tensor:
        """The sum under a name so far, on this rank; scalar on the device."""
        return self._sums[name][0]

    def merge(self, other: MetricSums) -> None:
        """Add all of another's sums and counts, and keep what is more extreme."""
        for name, pair in other._sums.items():
            held = self._sums.get(name)
            self._sums[name] = pair if held is None else held + pair
        self.add_extremes(other._extremes)

    def take_means(self, ranks: Ranks) -> dict[str, float]:
        """Reduce over ranks, copy to the host in one piece, forget; names keep the order in which they came.

        What is under `health/` stays a sum; what nothing was counted for has no mean, and is left out.

        Ranks may hold different names (a metric that only some rows have); each is counted where it is.
        """
        names = list(dict.fromkeys(name for held in ranks.gather(list(self._sums)) for name in held))
        if not names:
            return {}
        nothing = torch.zeros(2, device=next((pair.device for pair in self._sums.values()), None))
        summed = ranks.sum(torch.stack([self._sums.get(name, nothing) for name in names]))
        packed = torch.cat([summed.flatten(), *(value.reshape(1) for value in self._extremes.values())]).tolist()
        pairs, own = packed[: 2 * len(names)], packed[2 * len(names) :]
        means = {
            name: total if name.startswith(HEALTH) else total / count
            for name, total, count in zip(names, pairs[::2], pairs[1::2], strict=True)
            if count or name.startswith(HEALTH)
        }
        extremes = ranks.gather(dict(zip(self._extremes, own, strict=True)))
        for name in dict.fromkeys(name for held in extremes for name in held):
            values = [held[name] for held in extremes if name in held]
            means[name] = float(np.min(values) if name.startswith("min_") else np.max(values))
        self._sums, self._extremes = {}, {}
        return means

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint in the middle of an interval keeps: (sum, count), or an extreme, by name."""
        return {**self._sums, **self._extremes}

    def restore(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from a checkpoint's sums."""
        self._sums = {name: pair.to(device) for name, pair in tensors.items() if pair.ndim}
        self._extremes = {name: value.to(device) for name, value in tensors.items() if not value.ndim}


def _extreme(name: str, values: Tensor) -> Tensor:
    return values.amin() if name.startswith("min_") else values.amax()


def scalar(value: float, device: torch.device) -> Tensor:
    """A number as a scalar tensor on a device, without waiting for it."""
    return torch.full((), float(value), device=device)


def token_metrics(
    scores: CompletionScores, batch: MicroBatch, *, accuracy_of: Tensor | None = None
) -> dict[str, SumAndCount]:
    """Mean entropy over all counted tokens, and the share of them that were the likeliest.

    Args:
        scores: of a micro-batch.
        batch: the micro-batch.
        accuracy_of: (counted,) 1 where a token enters mean_token_accuracy, else 0; None takes all.
    """
    if scores.entropies is None or scores.correct is None:
        return {}
    counted = batch.num_counted.sum()
    correct, of = scores.correct, counted
    if accuracy_of is not None:
        correct, of = correct * accuracy_of, accuracy_of.sum()
    return {"entropy": (scores.entropies.sum(), counted), "mean_token_accuracy": (correct.sum(), of)}
