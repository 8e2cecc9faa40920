"""Losses of a pair that act on its two log-ratios apart, not only on their difference.

Notation: L = log π - log π_ref of a completion, nats; w the chosen and l the rejected one. Every loss takes PairScores
and returns (pairs,) values, neither weighted nor reduced. β is in 1/nats, > 0. Margins have no place here: there is no
single difference to subtract them from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.objectives.paired import Scalar, score_difference
from burnish.objectives.scores import PairScores


def nca_pair_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """-log σ(βLw) - ½ log σ(-βLw) - ½ log σ(-βLl).

    Source: Chen et al. (NCA), 2402.05369, section 4.1, for two responses.
    """
    chosen, rejected = beta * scores.chosen_logratio, beta * scores.rejected_logratio
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)


def bco_pair_loss(scores: PairScores, *, beta: Scalar, reward_baseline: Scalar = 0.0) -> Tensor:
    """-log σ(βLw - δ) - log σ(-(βLl - δ)).

    δ, `reward_baseline`, is the mean reward of all steps before (see running.RewardBaseline), 0 at the first; TRL 1.16
    keeps it at 0.

    Source: Jung et al. (BCO), 2404.04656, section 4.
    """
    chosen = beta * scores.chosen_logratio - reward_baseline
    rejected = beta * scores.rejected_logratio - reward_baseline
    return -F.logsigmoid(chosen) - F.logsigmoid(-rejected)


def sppo_hard_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """(Lw - 1/(2β))² + (Ll + 1/(2β))².

    Source: Wu et al. (SPPO), 2405.00675, eq. 4.7 with winning probabilities 1 and 0; β is 1/η.
    """
    target = 1 / (2 * beta)
    return (scores.chosen_logratio - target).square() + (scores.rejected_logratio + target).square()


def cal_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """-log σ(D) + (Lw - 1/(2β))² + (Ll + 1/(2β))²: the preference, and rewards calibrated to ±½.

    Source: Xiao et al. (Cal-DPO), 2412.14516. D carries no β.
    """
    return -F.logsigmoid(score_difference(scores)) + sppo_hard_loss(scores, beta=beta)


def apo_zero_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """1 - σ(βLw) + σ(βLl): chosen up, rejected down; for chosen completions better than the model's own.

    Source: D'Oosterlinck et al. (APO), 2408.06266, eq. 7.
    """
    return torch.sigmoid(-beta * scores.chosen_logratio) + torch.sigmoid(beta * scores.rejected_logratio)


def apo_down_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """σ(βLw) + 1 - σ(β(Lw - Ll)): both down, rejected more; for chosen completions worse than the model's own.

    Source: D'Oosterlinck et al. (APO), 2408.06266, eq. 8.
    """
    return torch.sigmoid(beta * scores.chosen_logratio) + torch.sigmoid(-beta * score_difference(scores))
