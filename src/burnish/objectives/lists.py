"""Objectives of ranked lists: k completions of one prompt, best first.

A list is a row of (lists, k) tensors padded to the longest; `mask` tells completions from padding.
L = log π - log π_ref, nats. Losses are (lists,), neither weighted nor reduced, and are divided by the step's lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.errors import DataError
from burnish.objectives.paired import Scalar
from burnish.objectives.scores import PairScores

EMPTY = -1e30
"""Stands for log 0 where -inf would turn gradients into nan."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ListScores:
    """Scores of ranked lists, best completion first."""

    logps: Tensor
    """(lists, k) log π, nats; anything finite in padding."""
    ref_logps: Tensor
    """(lists, k) log π_ref, nats."""
    mask: Tensor
    """(lists, k) bool: True where there is a completion."""
    weight: Tensor
    """(lists,) row weights, ≥ 0."""

    @classmethod
    def from_completions(
        cls, logps: Tensor, ref_logps: Tensor, order: Tensor, mask: Tensor, *, weight: Tensor | None = None
    ) -> ListScores:
        """Gather completion-level tensors into lists.

        Args:
            logps: (completions,).
            ref_logps: (completions,); its gradient is cut off.
            order: (lists, k) int64 from ranked_order: which completion stands where.
            mask: (lists, k) bool from ranked_order.
            weight: (lists,); None weighs each 1.
        """
        return cls(
            logps=logps.index_select(0, order.reshape(-1)).view(order.shape),
            ref_logps=ref_logps.detach().index_select(0, order.reshape(-1)).view(order.shape),
            mask=mask,
            weight=logps.new_ones(order.shape[0]) if weight is None else weight,
        )

    @property
    def logratios(self) -> Tensor:
        """(lists, k) log π - log π_ref, nats; 0 in padding."""
        return torch.where(self.mask, self.logps - self.ref_logps, 0.0)


def plackett_luce_loss(scores: ListScores, *, beta: Scalar) -> Tensor:
    """-Σ_i log [e^(βL_i) / Σ_{j≥i} e^(βL_j)], i and j over the ranking.

    Two completions make it DPO's loss. Source: Rafailov et al., 2305.18290, appendix A.3; not divided by k, as there.
    """
    rewards = beta * scores.logratios
    rest = _log_sum_of_rest(rewards, scores.mask)
    return ((rest - rewards) * scores.mask).sum(dim=1)


def softmax_loss(scores: ListScores, *, beta: Scalar) -> Tensor:
    """-log σ(-log Σ_l e^(β(L_l - L_w))): the first completion is chosen, all others are rejected.

    Two completions make it DPO's loss. Source: Chen et al. (S-DPO), 2406.09215.
    """
    rewards = beta * scores.logratios
    against = torch.where(scores.mask[:, 1:], rewards[:, 1:] - rewards[:, :1], EMPTY)
    return F.softplus(against.logsumexp(dim=1))


def ranked_order(rankings: Sequence[Sequence[int]], *, loss_type: str = "plackett_luce") -> tuple[Tensor, Tensor]:
    """Where the completions of each list stand, best first.

    Args:
        rankings: each list's ranks in the order of its completions, 0 the best; the lists follow one another.
        loss_type: plackett_luce admits no ties, softmax none for the best.

    Returns:
        (lists, k) int64 indices into the completions (0 in padding), and the mask.

    Raises:
        DataError: a tie that the objective does not admit.
    """
    longest = max(len(ranks) for ranks in rankings)
    order = torch.zeros(len(rankings), longest, dtype=torch.int64)
    mask = torch.zeros(len(rankings), longest, dtype=torch.bool)
    start = 0
    for number, ranks in enumerate(rankings):
        _refuse_ties(ranks, loss_type)
        places = sorted(range(len(ranks)), key=ranks.__getitem__)
        order[number, : len(ranks)] = torch.tensor(places) + start
        mask[number, : len(ranks)] = True
        start += len(ranks)
    return order, mask


def ranked_pairs(rankings: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of each list in which one completion ranks above the other; ties are skipped.

    Args:
        rankings: as in ranked_order.

    Returns:
        Indices of the chosen and of the rejected completions and of each pair's list, each (pairs,) int64.
    """
    chosen: list[int] = []
    rejected: list[int] = []
    lists: list[int] = []
    start = 0
    for number, ranks in enumerate(rankings):
        better = [(i, j) for i, high in enumerate(ranks) for j, low in enumerate(ranks) if high < low]
        chosen += [start + i for i, _ in better]
        rejected += [start + j for _, j in better]
        lists += [number] * len(better)
        start += len(ranks)
    as_tensor = [torch.tensor(values, dtype=torch.int64) for values in (chosen, rejected, lists)]
    return as_tensor[0], as_tensor[1], as_tensor[2]


def pairs_of_lists(
    logps: Tensor,
    ref_logps: Tensor | None,
    num_tokens: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    *,
    weight: Tensor,
    label_smoothing: Tensor | None = None,
) -> PairScores:
    """Scores for any paired loss over lists: the mean over each list's ranked pairs.

    Each pair carries its share of its list, and the step's denominator `pairs` is its number of lists: so the loss is
    the mean over lists of the mean over pairs.

    Args:
        logps: (completions,).
        ref_logps: (completions,) or None without a reference.
        num_tokens: (completions,) counted tokens.
        pairs: from ranked_pairs, on the same device.
        weight: (lists,) row weights.
        label_smoothing: (lists,) of the rows, or None.
    """
    chosen, rejected, lists = pairs
    both = torch.stack([chosen, rejected], dim=1).reshape(-1)
    pairs_in_list = weight.new_zeros(weight.shape).index_add(0, lists, weight.new_ones(lists.shape))
    return PairScores.from_completions(
        logps.index_select(0, both),
        None if ref_logps is None else ref_logps.index_select(0, both),
        num_tokens.index_select(0, both),
        weight=weight.index_select(0, lists),
        label_smoothing=None if label_smoothing is None else label_smoothing.index_select(0, lists),
        share=(1 / pairs_in_list.clamp(min=1)).index_select(0, lists),
    )


def _log_sum_of_rest(rewards: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of Σ_{j≥i} e^(r_j) over completions, (lists, k)."""
    k = rewards.shape[1]
    later = torch.ones(k, k, dtype=torch.bool, device=rewards.device).triu()
    return torch.where(later & mask[:, None, :], rewards[:, None, :], EMPTY).logsumexp(dim=2)


def _refuse_ties(ranks: Sequence[int], loss_type: str) -> None:
    tied = ranks.count(min(ranks)) > 1 if loss_type == "softmax" else len(set(ranks)) < len(ranks)
    if tied:
        raise DataError(
            f"tied ranks {list(ranks)}, which {loss_type} does not admit: break the tie, "
            "or take all_pairs, which skips ties"
        )
