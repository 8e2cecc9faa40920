"""Supervised objectives: one loss a counted token, divided by the step's counted tokens.

Every function takes (counted,) tensors and returns (counted,) losses, not reduced. Row weights, if any, multiply the
numerator outside.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def nll_loss(token_logps: Tensor) -> Tensor:
    """-log p(token): maximum likelihood.

    Args:
        token_logps: (counted,) nats.
    """
    return -token_logps


def dft_loss(token_logps: Tensor) -> Tensor:
    """-p(token) log p(token), without gradient through the factor: dynamic fine-tuning.

    Source: Wu et al. (DFT), 2508.05629, which scales each token by its own probability.

    Args:
        token_logps: (counted,) nats.
    """
    return -token_logps.detach().exp() * token_logps


SUPERVISED: dict[str, Callable[[Tensor], Tensor]] = {"nll": nll_loss, "dft": dft_loss}


def smoothed_loss(losses: Tensor, mean_logps: Tensor, *, label_smoothing: float) -> Tensor:
    """(1-ε) loss + ε (-mean over the vocabulary of log p): label smoothing of a supervised loss.

    Source: Szegedy et al., 1512.00567, section 7, with the uniform distribution.

    Args:
        losses: (counted,) from one of SUPERVISED.
        mean_logps: (counted,) nats: mean logit over the vocabulary minus its log-sum-exp.
        label_smoothing: ε in [0, 1).
    """
    return (1 - label_smoothing) * losses - label_smoothing * mean_logps


def z_loss(log_normalizers: Tensor) -> Tensor:
    """(log Σ e^logit)²: keeps the logits' normaliser near 1; to be added with a small weight such as 1e-4.

    Source: Chowdhery et al. (PaLM), 2204.02311, section 5.

    Args:
        log_normalizers: (counted,) log-sum-exp of the logits over the vocabulary, nats.
    """
    return log_normalizers.square()
