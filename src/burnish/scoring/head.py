"""The head: from hidden states of counted positions to log-probabilities, never the whole vocabulary at once.

The projection runs in blocks of rows, in the compute dtype, with the log-sum-exp in float32. The backward pass
recomputes each block's logits, so that memory is bounded by one block whatever the vocabulary; that costs one more
projection of the counted positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = 128 * 2**20
"""Most bytes of one block's float32 logits."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How an architecture turns the projection into logits: softcap · tanh(scale · z / softcap) where it caps."""

    scale: float = 1.0
    """Logits are multiplied by it (Cohere's logit_scale, the inverse of Granite's logits_scaling)."""
    softcap: float | None = None
    """Logits are squashed into (-softcap, softcap) (Gemma 2's final_logit_softcapping)."""


class TokenScores(NamedTuple):
    """One value for each of the rows that met the head; float32 (float64 where the inputs are)."""

    logps: Tensor
    """(rows,) nats: log-probability of the target."""
    mean_logits: Tensor
    """(rows,): mean logit over the vocabulary; no gradient."""
    entropies: Tensor | None
    """(rows,) nats; no gradient; None unless asked for."""
    correct: Tensor | None
    """(rows,) 0 or 1: whether the target has the greatest logit; None unless asked for."""
    log_sum_squares: Tensor | None = None
    """(rows,) nats, ≤ 0: log of the sum of squared probabilities; no gradient; None unless asked for."""


class HeadExtras(NamedTuple):
    """What else is computed of each row's logits, each at the cost of another pass over a block."""

    token_metrics: bool = False
    """Entropies, and whether the target was the likeliest."""
    log_sum_squares: bool = False
    """log Σ p², which WPO's weights need."""


NO_EXTRAS = HeadExtras()


def score_tokens(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    shape: HeadShape,
    extras: HeadExtras = NO_EXTRAS,
    block_bytes: int = BLOCK_BYTES,
) -> TokenScores:
    """Log-probability of each target under softmax(head(hidden)).

    Args:
        hidden: (rows, hidden size), in the compute dtype.
        weight: (vocabulary, hidden size).
        bias: (vocabulary,) or None.
        targets: (rows,) int64.
        shape: scale and soft cap of the logits.
        extras: what to give besides.
        block_bytes: most bytes of a block's logits.
    """
    rows_a_block = max(1, block_bytes // (weight.shape[0] * 4))
    cast_bias = None if bias is None else bias.to(hidden.dtype)
    logps, means, entropies, correct, squares = _BlockwiseHead.apply(
        hidden, weight.to(hidden.dtype), cast_bias, targets, shape, rows_a_block, extras
    )
    if shape.softcap is None:
        means = _mean_logits(hidden, weight, bias, shape.scale)
    if not extras.token_metrics:
        entropies = correct = None
    return TokenScores(logps, means, entropies, correct, squares if extras.log_sum_squares else None)


@torch.no_grad()
def _mean_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Mean logit over the vocabulary without any logits: the hidden state times the mean of the head's rows."""
    precise = _precise(hidden.dtype)
    mean_row = weight.mean(dim=0, dtype=precise)
    means = hidden.to(precise) @ mean_row
    return (means if bias is None else means + bias.mean(dtype=precise)) * scale


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _block_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, shape: HeadShape) -> tuple[Tensor, Tensor]:
    """Logits of a block in float32, and the squashed share of each (what the soft cap's derivative needs)."""
    logits = torch.nn.functional.linear(hidden, weight, bias).to(_precise(hidden.dtype))
    if shape.scale != 1.0:
        logits = logits * shape.scale
    if shape.softcap is None:
        return logits, logits
    squashed = torch.tanh_(logits / shape.softcap)
    return squashed * shape.softcap, squashed


class _BlockwiseHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        shape: HeadShape,
        rows_a_block: int,
        extras: HeadExtras,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        rows, precise = hidden.shape[0], _precise(hidden.dtype)
        logps, log_sums, means = (hidden.new_empty(rows, dtype=precise) for _ in range(3))
        entropies, correct = (hidden.new_empty(rows if extras.token_metrics else 0, dtype=precise) for _ in range(2))
        squares = hidden.new_empty(rows if extras.log_sum_squares else 0, dtype=precise)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, rows, rows_a_block):
                block = slice(start, start + rows_a_block)
                logits, _ = _block_logits(hidden[block], weight, bias, shape)
                log_sum = torch.logsumexp(logits, dim=1)
                target_logits = logits.gather(1, targets[block, None]).squeeze(1)
                log_sums[block] = log_sum
                logps[block] = target_logits - log_sum
                if shape.softcap is not None:
                    means[block] = logits.mean(dim=1)
                if extras.log_sum_squares:
                    squares[block] = torch.logsumexp(2 * logits, dim=1) - 2 * log_sum
                if extras.token_metrics:
                    correct[block] = (target_logits >= logits.amax(dim=1)).to(precise)
                    # entropy = log Σ e^z - Σ p z
                    entropies[block] = log_sum - (torch.softmax(logits, dim=1) * logits).sum(dim=1)
        ctx.save_for_backward(hidden, weight, bias, targets, log_sums)
        ctx.shape, ctx.rows_a_block = shape, rows_a_block
        ctx.mark_non_differentiable(means, entropies, correct, squares)
        return logps, means, entropies, correct, squares

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (the decorator changes the type)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_sums = ctx.saved_tensors
        grad_logps, shape = grad_outputs[0], ctx.shape
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=_precise(weight.dtype)) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=_precise(bias.dtype)) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, hidden.shape[0], ctx.rows_a_block):
                block = slice(start, start + ctx.rows_a_block)
                grad = _grad_projection(
                    hidden[block], weight, bias, targets[block], log_sums[block], grad_logps[block], shape
                ).to(weight.dtype)
                if grad_hidden is not None:
                    grad_hidden[block] = grad @ weight
                if grad_weight is not None:
                    _accumulate_product(grad_weight, grad, hidden[block])
                if grad_bias is not None:
                    grad_bias += grad.sum(dim=0, dtype=grad_bias.dtype)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
            *(None,) * 4,
        )


def _grad_projection(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    log_sums: Tensor,
    grad_logps: Tensor,
    shape: HeadShape,
) -> Tensor:
    """Derivative by the projection z: g · (onehot(target) - softmax), through soft cap and scale."""
    logits, squashed = _block_logits(hidden, weight, bias, shape)
    grad = (logits - log_sums[:, None]).exp_().mul_(-grad_logps[:, None])
    grad.scatter_add_(1, targets[:, None], grad_logps[:, None].to(grad.dtype))
    if shape.softcap is not None:
        grad.mul_(1 - squashed.square())
    return grad.mul_(shape.scale) if shape.scale != 1.0 else grad


def _accumulate_product(total: Tensor, grad: Tensor, hidden: Tensor) -> None:
    """Add gradᵀ · hidden to the total, in place where the dtypes agree."""
    if total.dtype == grad.dtype:
        total.addmm_(grad.t(), hidden)
    else:
        total += (grad.t() @ hidden).to(total.dtype)
