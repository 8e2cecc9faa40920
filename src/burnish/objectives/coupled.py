"""Objectives whose loss of one pair depends on the other pairs of the step, and how to train them in micro-batches.

Such a loss is computed on the scores of the whole step, taken without gradient; its derivative by each log-probability
then stands in for it, since d loss/d weights = Σ d loss/d logp · d logp/d weights: the backward passes are on
Σ coefficient · logp, micro-batch by micro-batch. This holds for any loss, whatever it couples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.paired import Scalar, smoothed_logistic
from burnish.objectives.scores import PairScores


def aot_loss(scores: PairScores, *, beta: Scalar, label_smoothing: Scalar = 0.0) -> Tensor:
    """-(1-ε) log σ(βd) - ε log σ(-βd), d = sort(logp_w - logp_l) - sort(ref_w - ref_l).

    The policy's margins are to dominate the reference's as distributions: the i-th smallest of the one is compared with
    the i-th smallest of the other, so the i-th value belongs to no pair.

    Source: Melnyk et al. (AOT), 2406.05882, section 3, paired.

    Args:
        scores: of the whole step.
        beta: 1/nats, > 0.
        label_smoothing: ε in [0, 0.5), one number: sorted values have no row.

    Raises:
        ConfigError: no reference was scored.
    """
    if scores.ref_chosen_logps is None or scores.ref_rejected_logps is None:
        raise ConfigError("loss_type aot compares the policy with a reference, and no reference was scored")
    policy = _sorted(scores.chosen_logps - scores.rejected_logps)
    reference = _sorted(scores.ref_chosen_logps - scores.ref_rejected_logps)
    return smoothed_logistic(beta * (policy - reference), label_smoothing)


def aot_unpaired_loss(scores: PairScores, *, beta: Scalar, label_smoothing: Scalar = 0.0) -> Tensor:
    """-(1-ε) log σ(βd) - ε log σ(-βd), d = sort(Lw) - sort(Ll), L = log π - log π_ref.

    Source: Melnyk et al. (AOT), 2406.05882, section 3, unpaired. Arguments are those of aot_loss.
    """
    difference = _sorted(scores.chosen_logratio) - _sorted(scores.rejected_logratio)
    return smoothed_logistic(beta * difference, label_smoothing)


def step_coefficients(objective: Callable[[PairScores], Tensor], scores: PairScores) -> tuple[Tensor, Tensor]:
    """A loss of the whole step, and its derivative by each completion's log-probability.

    Args:
        objective: gives the scalar loss of scores; sums and divisions included.
        scores: of the whole step, over all ranks; gradients are neither needed nor used.

    Returns:
        The loss, scalar, and (completions,) coefficients ordered chosen, rejected, chosen, rejected, …
    """
    with torch.enable_grad():
        logps = torch.stack([scores.chosen_logps.detach(), scores.rejected_logps.detach()], dim=1).requires_grad_()
        loss = objective(replace(scores, chosen_logps=logps[:, 0], rejected_logps=logps[:, 1]))
        (coefficients,) = torch.autograd.grad(loss, logps)
    return loss.detach(), coefficients.reshape(-1)


def linear_surrogate(coefficients: Tensor, scores: PairScores) -> Tensor:
    """Σ coefficient · logp of some pairs, whose gradient is theirs of the coupled loss and whose value is 0.

    Args:
        coefficients: (completions,) of these pairs, from step_coefficients.
        scores: of the same pairs, with gradient.
    """
    by_pair = coefficients.detach().view(-1, 2)
    value = (by_pair[:, 0] * scores.chosen_logps + by_pair[:, 1] * scores.rejected_logps).sum()
    return value - value.detach()


def _sorted(values: Tensor) -> Tensor:
    return torch.sort(values, stable=True).values
