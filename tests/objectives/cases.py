"""Random pairs as tensors and as plain numbers, and settings that let every part of a formula show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from burnish.objectives.divergences import choose_divergence
from burnish.objectives.facts import F_DIVERGENCE
from burnish.objectives.scores import PairScores
from burnish.objectives.table import PAIRED, keyword_arguments
from objectives.oracles import Pair

SETTINGS: dict[str, Any] = {
    "beta": 0.3,
    "label_smoothing": 0.15,
    "discopop_tau": 0.4,
    "dpop_lambda": 3.0,
    "simpo_gamma": 0.7,
    "alphapo_alpha": 0.35,
    "cpo_alpha": 1.7,
    "reward_baseline": 0.23,
}
"""None at its default, none that makes a term vanish."""


def random_scores(seed: int = 0, num_pairs: int = 12, *, margin: bool = True) -> PairScores:
    """Pairs of 1 to 9 tokens with log-probabilities of a few nats, float64, log-ratios of both signs."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, count: int) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    logps = uniform(-9, -0.5, 2 * num_pairs)
    return PairScores.from_completions(
        logps,
        logps + uniform(-3, 3, 2 * num_pairs),
        torch.randint(1, 10, (2 * num_pairs,), generator=generator),
        weight=uniform(0.5, 2, num_pairs),
        margin=uniform(-1, 1, num_pairs) if margin else None,
    )


def map_tensors(scores: PairScores, change: Callable[[Tensor], Tensor]) -> PairScores:
    """The same scores with each tensor changed."""
    tensors: dict[str, Any] = {field.name: getattr(scores, field.name) for field in fields(scores)}
    return replace(scores, **{name: change(tensor) for name, tensor in tensors.items() if tensor is not None})


def as_numbers(scores: PairScores) -> list[Pair]:
    """The same pairs for the oracles."""
    assert scores.ref_chosen_logps is not None
    assert scores.ref_rejected_logps is not None
    margins = [0.0] * scores.num_pairs if scores.margin is None else scores.margin.tolist()
    columns = (
        scores.chosen_logps.tolist(),
        scores.rejected_logps.tolist(),
        scores.ref_chosen_logps.tolist(),
        scores.ref_rejected_logps.tolist(),
        [int(count) for count in scores.chosen_num_tokens],
        [int(count) for count in scores.rejected_num_tokens],
        margins,
    )
    return [Pair(*row) for row in zip(*columns, strict=True)]


def arguments(function: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a loss names, with the f-divergence as the function that it takes."""
    values = dict(settings)
    if "f_divergence_type" in values:
        coef = values.get("f_alpha_divergence_coef", 0.5)
        values["divergence"] = choose_divergence(values["f_divergence_type"], coef=coef)
    return {name: values[name] for name in keyword_arguments(function) if name in values}


def losses(name: str, scores: PairScores, settings: dict[str, Any]) -> Tensor:
    """(pairs,) losses of an objective by name."""
    function = PAIRED[name].function
    return function(scores, **arguments(function, settings))


DIVERGENT = [name for name, objective in PAIRED.items() if F_DIVERGENCE[0] in objective.settings]
