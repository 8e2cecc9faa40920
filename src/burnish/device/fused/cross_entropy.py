"""The vendor's cross-entropy for blocks of the head: log-softmax and the target's share in one operator.

Its two kernels are called by themselves, not through autograd, for the head decides what waits for the backward pass.
Limits are those of the vendor's documents for torch_npu 2.13: at most MOST_ROWS rows a call, targets within the
vocabulary, no label smoothing with reduction "none".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from burnish.device.fused.kernels import is_on_npu, vendor

MOST_ROWS = 200_000
"""Rows of one call."""
_FUSED = "_burnish_cross_entropy"
"""Mark on a head whose blocks take the operator."""


def take_cross_entropy(head: nn.Module) -> None:
    """Let the blocks of a head take the operator, wherever they are on an NPU."""
    setattr(head, _FUSED, True)


def takes_cross_entropy(head: nn.Module, hidden: Tensor) -> bool:
    """Whether the blocks of this head take it: for hidden states on the host the plain computation stays."""
    return getattr(head, _FUSED, False) and is_on_npu(hidden)


def log_probabilities(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-softmax of a block, and the targets' part of it.

    Args:
        logits: (rows, vocabulary) float32, rows ≤ MOST_ROWS.
        targets: (rows,) int64.

    Returns:
        (rows,) log-probability of each target in nats, and (rows, vocabulary) of all; float32.
    """
    losses, log_probs = vendor().npu_cross_entropy_loss(logits, targets, reduction="none")[:2]
    return losses.neg(), log_probs


def logits_gradient(upstream: Tensor, log_probs: Tensor, targets: Tensor) -> Tensor:
    """Derivative by the logits of Σ upstream · log-probability of the target: upstream · (onehot(target) - softmax).

    Args:
        upstream: (rows,) float32.
        log_probs: (rows, vocabulary) float32, from `log_probabilities`.
        targets: (rows,) int64.
    """
    backward: Any = vendor().npu_cross_entropy_loss_backward
    return backward(upstream.neg(), log_probs, targets, reduction="none")
