"""What tells whether preference training goes astray, as sums over pairs: nothing beyond what a step has computed.

Chosen completions may become less likely while the loss falls (Pal et al., 2402.13228; Razin et al., 2410.08847), pairs
may be so far apart that they teach nothing more, and rewards may follow length (Singhal et al., 2310.03716; Park et
al., 2403.19159). Each value is a sum under a name that begins with `health/`, to be added up over micro-batches, ranks
and steps; `engine/health.py` judges them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from burnish.objectives.metrics import Metric
from burnish.objectives.scores import PairScores
from burnish.objectives.unpaired import UnpairedScores

PREFIX = "health/"
SATURATED_WEIGHT = 0.01
"""A pair counts as saturated from σ(-margin) < 0.01 on: the logistic losses then move it by 1 % of the first step."""


def length_sums(margins: Tensor, length_differences: Tensor, of: str = "pairs") -> dict[str, Metric]:
    """What the correlation of rewards and lengths is made of: Σ m, Σ d, Σ m d, Σ m², Σ d², and their number.

    Args:
        margins: (pairs,) m, the chosen completion's reward less the rejected one's; of rows without pairs, the reward.
        length_differences: (pairs,) d, likewise of counted tokens.
        of: what is counted, pairs or rows.
    """
    m, d = margins.detach(), length_differences.to(margins.dtype)
    count = torch.full((), float(m.shape[0]), device=m.device)
    names, values = ("m", "d", "md", "mm", "dd"), torch.stack([m, d, m * d, m * m, d * d]).sum(dim=1)
    return _as_sums({of: count, **dict(zip(names, values.unbind(), strict=True))})


def preference_health(
    scores: PairScores, chosen_rewards: Tensor, rejected_rewards: Tensor, *, saturates: bool
) -> dict[str, Metric]:
    """Sums over some pairs.

    Args:
        scores: of the pairs; without a reference, log-probabilities stand for log-ratios.
        chosen_rewards: (pairs,) nats.
        rejected_rewards: (pairs,) nats.
        saturates: whether the objective's gradient vanishes as the margin grows.
    """
    margins = (chosen_rewards - rejected_rewards).detach()
    shift = scores.chosen_logps if scores.ref_chosen_logps is None else scores.chosen_logratio
    shift = shift.detach()
    sums = _chosen_sums(shift, scores.chosen_num_tokens, torch.ones_like(shift))
    if saturates:
        sums["saturated"] = (torch.sigmoid(-margins) < SATURATED_WEIGHT).to(shift.dtype).sum()
    return length_sums(margins, scores.chosen_num_tokens - scores.rejected_num_tokens) | _as_sums(sums)


def unpaired_health(scores: UnpairedScores, rewards: Tensor) -> dict[str, Metric]:
    """Sums over rows of one labelled completion each; the desirable ones are the chosen.

    Args:
        scores: of some rows.
        rewards: (rows,) nats.
    """
    chosen = _chosen_sums(scores.logratio.detach(), scores.num_tokens, scores.is_desirable)
    return length_sums(rewards, scores.num_tokens, of="rows") | _as_sums(chosen)


def _chosen_sums(shift: Tensor, num_tokens: Tensor, is_chosen: Tensor) -> dict[str, Tensor]:
    columns = torch.stack([shift, shift.square(), num_tokens.to(shift.dtype), torch.ones_like(shift)])
    names = ("chosen", "chosen_squared", "chosen_tokens", "chosen_count")
    return dict(zip(names, (columns * is_chosen).sum(dim=1).unbind(), strict=True))


def _as_sums(values: dict[str, Tensor]) -> dict[str, Metric]:
    return {f"{PREFIX}{name}": (value, torch.zeros_like(value)) for name, value in values.items()}
