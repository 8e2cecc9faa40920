"""Scores of the log-ratio that follow from an f-divergence: f'(π/π_ref), up to a constant.

Source: Wang et al., 2309.16240, table 1. Each takes log-ratios L = log π - log π_ref in nats, of any shape, and gives
scores of the same shape; each has slope 1 at L = 0, so β means the same for all. Exponents stop at 80, which float32
still holds; beyond, a score is constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_EXPONENT = 80.0
"""e^80 is 5.5e34; float32 ends at 3.4e38."""

Divergence = Callable[[Tensor], Tensor]


def reverse_kl(logratio: Tensor) -> Tensor:
    """Reverse KL, the divergence of DPO itself: s = L."""
    return logratio


def forward_kl(logratio: Tensor) -> Tensor:
    """Forward KL: s = 1 - e^(-L)."""
    return -torch.expm1((-logratio).clamp(max=MAX_EXPONENT))


def js_divergence(logratio: Tensor) -> Tensor:
    """Jensen-Shannon: s = log 2 + log σ(L). Its slope at L = 0 is 1/2, the one exception."""
    return math.log(2) + F.logsigmoid(logratio)


def alpha_divergence(logratio: Tensor, *, coef: float = 0.5) -> Tensor:
    """α-divergence: s = (e^((a-1)L) - 1)/(a-1), and its limit L where a = 1.

    Args:
        logratio: nats.
        coef: a; the paper's α is 1 - a. 0 gives forward_kl.
    """
    if abs(coef - 1) < 1e-6:
        return logratio
    return torch.expm1(((coef - 1) * logratio).clamp(max=MAX_EXPONENT)) / (coef - 1)


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "js_divergence": js_divergence,
    "alpha_divergence": alpha_divergence,
}


def choose_divergence(name: str, *, coef: float = 0.5) -> Divergence:
    """The function by its name in DIVERGENCES; coef matters for alpha_divergence only."""
    if name == "alpha_divergence":
        return lambda logratio: alpha_divergence(logratio, coef=coef)
    return DIVERGENCES[name]
