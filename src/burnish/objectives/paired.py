"""The DPO family: losses of a pair that see its log-ratios only through their difference.

Notation: L = log π - log π_ref of a completion, w the chosen and l the rejected one, s the f-divergence's score
(identity by default), D = s(Lw) - s(Ll), |y| counted tokens, m the row's margin (0 without), ε label smoothing.

Every loss takes PairScores and returns (pairs,) values, neither weighted nor reduced. β is in 1/nats, > 0, a number or
a scalar tensor (a schedule's value stays on the device).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.divergences import MAX_EXPONENT, Divergence, reverse_kl
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

    Source: Zhao et al. (SLiC), 2305.10425, section 2; with a reference as in Liu et al. (RSO), 2309.06657. Their
    margin is 1/β.
    """
    return torch.relu(1 - beta * score_difference(scores, divergence))


def ipo_loss(scores: PairScores, *, beta: Scalar, divergence: Divergence = reverse_kl) -> Tensor:
    """(s(Lw)/|yw| - s(Ll)/|yl| - 1/(2β))².

    Source: Azar et al., 2310.12036, eq. 17 (β is their τ); by token, as its authors confirmed. The root stops at
    ±1e18, which only an exponential f-divergence reaches, so that its square is finite.
    """
    root = average_score_difference(scores, divergence) - 1 / (2 * beta)
    return root.clamp(-MAX_ROOT, MAX_ROOT).square()


def sigmoid_norm_loss(scores: PairScores, *, beta: Scalar, divergence: Divergence = reverse_kl) -> Tensor:
    """-log σ(β(s(Lw)/|yw| - s(Ll)/|yl|) - m).

    Source: the length-normalised DPO of Lambert et al. (Tülu 3), 2411.15124.
    """
    return -F.logsigmoid(minus_margin(beta * average_score_difference(scores, divergence), scores))


def exo_pair_loss(
    scores: PairScores, *, beta: Scalar, label_smoothing: Scalar, divergence: Divergence = reverse_kl
) -> Tensor:
    """σ(βD)[log σ(βD) - log(1-ε)] + σ(-βD)[log σ(-βD) - log ε].

    The reverse KL from the policy's preference to the labels' (1-ε, ε), so ε must be in (0, 0.5); the caller checks.

    Source: Ji et al. (EXO), 2402.00856, eq. 16.
    """
    logits = beta * score_difference(scores, divergence)
    chosen_gap = F.logsigmoid(logits) - _log(1 - label_smoothing)
    rejected_gap = F.logsigmoid(-logits) - _log(label_smoothing)
    return torch.sigmoid(logits) * chosen_gap + torch.sigmoid(-logits) * rejected_gap


def robust_loss(
    scores: PairScores, *, beta: Scalar, label_smoothing: Scalar = 0.0, divergence: Divergence = reverse_kl
) -> Tensor:
    """[-(1-ε) log σ(βD - m) + ε log σ(-(βD - m))] / (1 - 2ε).

    An unbiased estimate of the clean loss where labels are flipped with probability ε in [0, 0.5).

    Source: Chowdhury et al. (rDPO), 2403.00409, section 3.1.
    """
    logits = minus_margin(beta * score_difference(scores, divergence), scores)
    clean, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def discopop_loss(
    scores: PairScores, *, beta: Scalar, discopop_tau: float = 0.05, divergence: Divergence = reverse_kl
) -> Tensor:
    """-(1-μ) log σ(u) + μ e^(-u), where u = βD and μ = σ(u/τ).

    Source: Lu et al. (DiscoPOP), 2406.08414, eq. 5. The second term is computed as e^(log σ(u/τ) - u), which stays
    finite where e^(-u) alone does not; TRL 1.16's overflows at u = -89.
    """
    logits = beta * score_difference(scores, divergence)
    modulation = torch.sigmoid(logits / discopop_tau)
    exponential = (F.logsigmoid(logits / discopop_tau) - logits).clamp(max=MAX_EXPONENT).exp()
    return -(1 - modulation) * F.logsigmoid(logits) + exponential


def odpo_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """-log σ(βD - m), with a margin in every row.

    Source: Amini et al. (DPO with an offset), 2402.10571: m is a growing function of how much better the chosen
    completion is, computed by whoever made the rows.

    Raises:
        ConfigError: the rows have no margin.
    """
    if scores.margin is None:
        raise ConfigError("loss_type odpo needs a margin in every row: add the column, or take sigmoid")
    return sigmoid_loss(scores, beta=beta)


def dpop_loss(scores: PairScores, *, beta: Scalar, dpop_lambda: float = 50.0) -> Tensor:
    """-log σ(β(D - λ max(0, -Lw)) - m): the chosen completion must not become less likely.

    Source: Pal et al. (Smaug), 2402.13228; λ = 50 is the paper's.
    """
    penalty = torch.relu(-scores.chosen_logratio)
    return -F.logsigmoid(minus_margin(beta * (score_difference(scores) - dpop_lambda * penalty), scores))


def sft_loss(scores: PairScores) -> Tensor:
    """-log π(yw), to be divided by the step's chosen tokens.

    Source: the likelihood term of Pang et al. (IRPO), 2404.19733, and Liu et al. (RPO), 2405.16436. Never discounted by
    ld_alpha, nor weighted by use_weighting (TRL 1.16 multiplies it by the mean weight of the pairs in its micro-batch).
    """
    return -scores.chosen_log_likelihood


def _log(value: Scalar) -> Scalar:
    return value.log() if isinstance(value, Tensor) else math.log(value)
