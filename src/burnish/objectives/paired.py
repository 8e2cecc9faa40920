"""The DPO family: losses of one pair that see the log-ratios only through their difference.

Notation: L = log π - log π_ref of a completion, w the chosen and l the rejected one, s the f-divergence's score
(identity by default), D = s(Lw) - s(Ll), |y| counted tokens, m the row's margin (0 without), ε label smoothing.

Every loss takes PairScores and returns (pairs,) values, neither weighted nor reduced. β is in 1/nats, > 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.objectives.divergences import Divergence, reverse_kl
from burnish.objectives.scores import PairScores

Scalar = float | Tensor
"""A number, or a tensor that broadcasts to (pairs,)."""

MAX_ROOT = 1e18
"""Largest number whose square float32 holds with room for a sum of many."""


def score_difference(scores: PairScores, divergence: Divergence = reverse_kl) -> Tensor:
    """D = s(Lw) - s(Ll), (pairs,)."""
    return divergence(scores.chosen_logratio) - divergence(scores.rejected_logratio)


def average_score_difference(scores: PairScores, divergence: Divergence = reverse_kl) -> Tensor:
    """s(Lw)/|yw| - s(Ll)/|yl|, (pairs,)."""
    chosen = divergence(scores.chosen_logratio) / scores.chosen_num_tokens.clamp(min=1)
    rejected = divergence(scores.rejected_logratio) / scores.rejected_num_tokens.clamp(min=1)
    return chosen - rejected


def minus_margin(logits: Tensor, scores: PairScores) -> Tensor:
    """Subtract the rows' margins, once; (pairs,)."""
    return logits if scores.margin is None else logits - scores.margin


def smoothed_logistic(logits: Tensor, label_smoothing: Scalar) -> Tensor:
    """-(1-ε) log σ(z) - ε log σ(-z), (pairs,)."""
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


def sigmoid_loss(
    scores: PairScores, *, beta: Scalar, label_smoothing: Scalar = 0.0, divergence: Divergence = reverse_kl
) -> Tensor:
    """DPO: -(1-ε) log σ(βD - m) - ε log σ(-(βD - m)).

    Source: Rafailov et al., 2305.18290, eq. 7; ε: conservative DPO (Mitchell, 2023), where ε in [0, 0.5) is the
    probability that a label is flipped. TRL 1.16 takes label_smoothing with this loss and ignores it.
    """
    return smoothed_logistic(minus_margin(beta * score_difference(scores, divergence), scores), label_smoothing)


def hinge_loss(scores: PairScores, *, beta: Scalar, divergence: Divergence = reverse_kl) -> Tensor:
    """max(0, 1 - βD).

    Source: Zhao et al. (SLiC), 2305.10425; with a reference as in Liu et al. (RSO), 2309.06657. 1/β is the margin.
    """
    return torch.relu(1 - beta * score_difference(scores, divergence))


def ipo_loss(scores: PairScores, *, beta: Scalar, divergence: Divergence = reverse_kl) -> Tensor:
    """(s(Lw)/|yw| - s(Ll)/|yl| - 1/(2β))².

    Source: Azar et al., 2310.12036, eq. 17 (β is their τ); by token, as its authors confirmed. The root stops at
    ±1e18, which only an exponential f-divergence reaches, so that its square is finite.
    """
    root = average_score_difference(scores, divergence) - 1 / (2 * beta)
    return root.clamp(-MAX_ROOT, MAX_ROOT).square()
