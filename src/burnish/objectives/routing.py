"""The balancing loss of mixture-of-experts models, over a whole step: pure functions of sums."""

from __future__ import annotations

from torch import Tensor


def balancing_loss(probabilities: Tensor, assignments: Tensor, num_rows: Tensor) -> Tensor:
    """E · Σ_e f_e P_e: 1 where the router spreads evenly and takes one expert a token, E where it takes one alone.

    f_e is the share of rows for which expert e was among the chosen, P_e the mean probability of e. With `assignments`
    and `num_rows` of a whole step and `probabilities` of one of its micro-batches, it is the micro-batch's share: the
    shares add up to the step's loss, and so do their gradients, however the step is cut.

    Source: Fedus et al. (Switch Transformer), 2101.03961, eq. 4 to 6; the same as transformers'
    load_balancing_loss_func, which sums over a micro-batch where this sums over the step.

    Args:
        probabilities: (experts,) router probabilities summed over rows; with gradient.
        assignments: (experts,) how often each expert was chosen, without gradient.
        num_rows: scalar, tokens times layers, > 0.
    """
    return len(probabilities) * (assignments * probabilities).sum() / num_rows.square()
