"""Reward models: losses of scalar rewards of pairs, and their metrics.

Lists go through the same functions: lists.ranked_pairs says which rewards meet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.objectives.metrics import Metric


def bradley_terry_loss(
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    *,
    margin: Tensor | None = None,
    label_smoothing: Tensor | None = None,
    center_rewards_coefficient: float = 0.0,
) -> Tensor:
    """-(1-ε) log σ(d) - ε log σ(-d) + c (r_w + r_l)², d = r_w - r_l - m.

    Source: Bradley-Terry likelihood; margin: Touvron et al. (Llama 2), 2307.09288, section 3.2.2; centering: Eisenstein
    et al., 2312.09244; ε as in cDPO: the likelihood of labels of which so many are flipped.

    Args:
        chosen_rewards: (pairs,).
        rejected_rewards: (pairs,).
        margin: (pairs,) m, in units of reward; None for 0.
        label_smoothing: (pairs,) ε in [0, 0.5); None for 0.
        center_rewards_coefficient: c ≥ 0; draws the pair's mean reward to 0, which pairs alone leave undetermined.

    Returns:
        (pairs,) losses, not reduced.
    """
    difference = chosen_rewards - rejected_rewards
    if margin is not None:
        difference = difference - margin
    centering = center_rewards_coefficient * (chosen_rewards + rejected_rewards).square()
    losses = -F.logsigmoid(difference)
    if label_smoothing is not None:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-difference)
    return losses + centering


def reward_metrics(chosen_rewards: Tensor, rejected_rewards: Tensor) -> dict[str, Metric]:
    """`accuracy` (strictly greater), `margin` and `mean_reward` as (sum, count), under TRL's keys.

    Args:
        chosen_rewards: (pairs,).
        rejected_rewards: (pairs,).
    """
    chosen, rejected = chosen_rewards.detach(), rejected_rewards.detach()
    pairs = torch.full((), float(chosen.shape[0]), device=chosen.device)
    return {
        "accuracy": ((chosen > rejected).to(chosen.dtype).sum(), pairs),
        "margin": ((chosen - rejected).sum(), pairs),
        "mean_reward": ((chosen + rejected).sum(), 2 * pairs),
    }


def reward_extremes(chosen_rewards: Tensor, rejected_rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest reward, scalars: `min_reward` and `max_reward`, which reduce by min and max over an interval.

    TRL 1.16 logs the mean of its batches' extremes instead, which depends on the batch size.
    """
    both = torch.stack([chosen_rewards.detach(), rejected_rewards.detach()])
    return both.min(), both.max()
