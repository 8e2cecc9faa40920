"""Paired losses without a reference model.

Notation: logp = log π of a completion, nats; |y| its counted tokens; avg = logp/|y|; w the chosen and l the rejected
one; m the row's margin (0 without). The losses take PairScores and return (pairs,) values, neither weighted nor
reduced; the likelihoods are second parts that are divided by the step's chosen tokens instead of its pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.divergences import MAX_EXPONENT
from burnish.objectives.paired import Scalar, minus_margin, smoothed_logistic
from burnish.objectives.scores import PairScores

MIN_SURPRISE = 1e-7
"""Least -avg, nats: float32 cannot tell a smaller one from certainty, whose odds are infinite."""


def simpo_loss(scores: PairScores, *, beta: Scalar, simpo_gamma: float = 0.5, label_smoothing: Scalar = 0.0) -> Tensor:
    """-(1-ε) log σ(z) - ε log σ(-z), where z = β(avg(yw) - avg(yl)) - γ - m.

    Source: Meng et al. (SimPO), 2405.14734, eq. 6; β is 2 to 2.5 there, γ 0.3 to 1.6, in units of reward.
    """
    logits = beta * (scores.chosen_average - scores.rejected_average) - simpo_gamma
    return smoothed_logistic(minus_margin(logits, scores), label_smoothing)


def cpo_loss(scores: PairScores, *, beta: Scalar, label_smoothing: Scalar = 0.0) -> Tensor:
    """-(1-ε) log σ(z) - ε log σ(-z), where z = β(logp(yw) - logp(yl)) - m: CPO's preference part.

    Source: Xu et al. (CPO), 2401.08417, eq. 3.
    """
    logits = beta * (scores.chosen_logps - scores.rejected_logps)
    return smoothed_logistic(minus_margin(logits, scores), label_smoothing)


def cpo_likelihood(scores: PairScores, *, cpo_alpha: float = 1.0) -> Tensor:
    """-α logp(yw), to be divided by the step's chosen tokens: CPO's behaviour cloning, 2401.08417."""
    return -cpo_alpha * scores.chosen_log_likelihood


def orpo_loss(scores: PairScores, *, beta: Scalar) -> Tensor:
    """-β log σ(odds), odds = avg(yw) - avg(yl) - [log(1-e^avg(yw)) - log(1-e^avg(yl))]: ORPO's odds ratio.

    Source: Hong et al. (ORPO), 2403.07691, eq. 7; β is their λ.
    """
    odds = log_odds(scores.chosen_average) - log_odds(scores.rejected_average)
    return -beta * F.logsigmoid(odds)


def log_odds(average: Tensor) -> Tensor:
    """log(p/(1-p)) of p = e^avg, with avg held at -1e-7 where float32 rounds p to 1."""
    return average - torch.log(-torch.expm1(average.clamp(max=-MIN_SURPRISE)))


def orpo_likelihood(scores: PairScores, *, orpo_nll_on_prompt: bool = False) -> Tensor:
    """-logp(yw), to be divided by the step's chosen tokens: ORPO's supervised part (2403.07691, eq. 6).

    With orpo_nll_on_prompt, as in TRL 1.16, the prompt's tokens count too, in the divisor as well.

    Raises:
        ConfigError: the prompt is to count, and was not scored.
    """
    if not orpo_nll_on_prompt:
        return -scores.chosen_log_likelihood
    if scores.prompt_logps is None:
        raise ConfigError("orpo_nll_on_prompt needs log-probabilities of the prompt, and none were scored")
    return -scores.chosen_log_likelihood - scores.prompt_logps


def alphapo_loss(scores: PairScores, *, beta: Scalar, alphapo_alpha: float = 0.25, simpo_gamma: float = 0.5) -> Tensor:
    """-log σ(r(yw) - r(yl) - γ), r(y) = β(1 - e^(-α·avg(y)))/α, and β·avg(y) where α = 0.

    Source: Gupta et al. (AlphaPO), 2501.03884. Exponents stop at 80.
    """
    chosen = alphapo_reward(scores.chosen_average, beta=beta, alphapo_alpha=alphapo_alpha)
    rejected = alphapo_reward(scores.rejected_average, beta=beta, alphapo_alpha=alphapo_alpha)
    return -F.logsigmoid(chosen - rejected - simpo_gamma)


def alphapo_reward(average: Tensor, *, beta: Scalar, alphapo_alpha: float) -> Tensor:
    """AlphaPO's reward β(1 - e^(-α·avg))/α, of any shape; β·avg where α = 0."""
    if alphapo_alpha == 0:
        return beta * average
    return -beta * torch.expm1((-alphapo_alpha * average).clamp(max=MAX_EXPONENT)) / alphapo_alpha
