"""From tokens to completions: sums of log-probabilities, LD-DPO's discount, WPO's weights.

Counted tokens come as (counted,) tensors with two int64 companions of the same shape: `completion_index`, which
completion each belongs to, and `token_offset`, its place among that completion's counted tokens, from 0.
"""

from __future__ import annotations

from torch import Tensor


def aggregate_logps(
    token_logps: Tensor,
    completion_index: Tensor,
    token_offset: Tensor,
    *,
    num_completions: int,
    max_counted: int,
    token_weights: Tensor | None = None,
) -> Tensor:
    """Sum log-probabilities of counted tokens by completion.

    Each token is written once into a table of (completions, max_counted), whose rows are summed: forward and backward
    are reproducible on every device, which a scattered addition is not.

    Args:
        token_logps: (counted,) nats.
        completion_index: (counted,) in [0, num_completions).
        token_offset: (counted,) in [0, max_counted).
        num_completions: completions; one without counted tokens gets 0.
        max_counted: the most counted tokens of any completion; a host number, so that no shape waits for the device.
        token_weights: (counted,) factors, such as discount_weights or the rows' own; None for 1.

    Returns:
        (num_completions,) nats.
    """
    values = token_logps if token_weights is None else token_logps * token_weights
    table = values.new_zeros(num_completions * max_counted)
    slots = completion_index * max_counted + token_offset
    return table.index_copy(0, slots, values).view(num_completions, max_counted).sum(dim=1)


def discount_weights(num_tokens: Tensor, completion_index: Tensor, token_offset: Tensor, *, ld_alpha: float) -> Tensor:
    """LD-DPO's weight of each counted token: 1 for the first min(|yw|, |yl|) of a completion, α for those beyond.

    Use the same weights for policy and reference. Source: Liu et al. (LD-DPO), 2409.06411.

    Args:
        num_tokens: (completions,) counted tokens: chosen, rejected, chosen, …
        completion_index: (counted,).
        token_offset: (counted,).
        ld_alpha: α in [0, 1]; 1 changes nothing, 0 ignores what the shorter completion has no counterpart for.

    Returns:
        (counted,) of num_tokens' dtype.
    """
    shared = num_tokens.view(-1, 2).amin(dim=1).repeat_interleave(2)
    is_tail = (token_offset >= shared.index_select(0, completion_index)).to(num_tokens.dtype)
    return 1 - (1 - ld_alpha) * is_tail


def likelihood_weights(
    token_logps: Tensor,
    token_log_sum_squares: Tensor,
    completion_index: Tensor,
    token_offset: Tensor,
    num_tokens: Tensor,
    *,
    max_counted: int,
) -> Tensor:
    """WPO's weight of each pair: e^(mean aligned logp_w) · e^(mean aligned logp_l), without gradient.

    Aligned is logp - log Σ p², p the policy's distribution at the token: sampling from the policy has weight 1 on
    average whatever its entropy. Source: Zhou et al. (WPO), 2406.11827, eq. 2.

    Args:
        token_logps: (counted,) nats.
        token_log_sum_squares: (counted,) log of the sum over the vocabulary of squared probabilities, nats, ≤ 0.
        completion_index: (counted,).
        token_offset: (counted,).
        num_tokens: (completions,) counted tokens: chosen, rejected, chosen, …
        max_counted: as in aggregate_logps.

    Returns:
        (pairs,) weights, for PairScores.pair_weight.
    """
    sums = aggregate_logps(
        token_logps.detach() - token_log_sum_squares.detach(),
        completion_index,
        token_offset,
        num_completions=num_tokens.shape[0],
        max_counted=max_counted,
    )
    return (sums / num_tokens.clamp(min=1)).view(-1, 2).sum(dim=1).exp()
