"""The head: from hidden states of counted positions to log-probabilities, never the whole vocabulary at once.

The projection runs in blocks of rows, in the compute dtype, with the log-sum-exp in float32. What the backward pass
needs is kept in the cheapest form to use that memory allows:

- a frozen head needs only the gradient by the hidden state, which is linear in the gradient that arrives: W[target] -
  Σ p W is computed in the forward pass, and no logits are needed again;
- softmax of as many rows as KEPT_BYTES hold, in the compute dtype, written over the logits;
- nothing for the other rows: their logits are computed again, one more projection, so that memory stays bounded
  whatever the vocabulary.

Where a device has cross-entropy as one operator (device.fused.cross_entropy), a block's log-probabilities come from it,
stay in float32 instead of the softmax, and go through its derivative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from burnish.device.cpu_products import product
from burnish.device.fused.cross_entropy import MOST_ROWS, log_probabilities, logits_gradient
from burnish.scoring.compute_copies import compute_copy

BLOCK_BYTES = 128 * 2**20
"""Most bytes of one block's float32 logits."""
KEPT_BYTES = 256 * 2**20
"""Most bytes of probabilities that wait for the backward pass."""
CACHED_BYTES = 4 * 2**20
"""Logits that are reduced in one go on the CPU: what its caches hold."""


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
    """(rows,): mean logit over the vocabulary; with a gradient where log_normalizers are asked for."""
    entropies: Tensor | None
    """(rows,) nats; no gradient; None unless asked for."""
    correct: Tensor | None
    """(rows,) 0 or 1: whether the target has the greatest logit; None unless asked for."""
    log_sum_squares: Tensor | None = None
    """(rows,) nats, ≤ 0: log of the sum of squared probabilities; no gradient; None unless asked for."""
    log_normalizers: Tensor | None = None
    """(rows,) nats: log-sum-exp of the logits; None unless asked for."""


class HeadExtras(NamedTuple):
    """What else is computed of each row's logits, each at the cost of another pass over a block."""

    token_metrics: bool = False
    """Entropies, and whether the target was the likeliest."""
    log_sum_squares: bool = False
    """log Σ p², which WPO's weights need."""
    normalizers: bool = False
    """log-sum-exps, with gradients through them and the mean logits; costs nothing."""


NO_EXTRAS = HeadExtras()


def score_tokens(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    shape: HeadShape,
    extras: HeadExtras = NO_EXTRAS,
    fused: bool = False,
    block_bytes: int = BLOCK_BYTES,
    kept_bytes: int = KEPT_BYTES,
) -> TokenScores:
    """Log-probability of each target under softmax(head(hidden)).

    Args:
        hidden: (rows, hidden size), in the compute dtype.
        weight: (vocabulary, hidden size).
        bias: (vocabulary,) or None.
        targets: (rows,) int64.
        shape: scale and soft cap of the logits.
        extras: what to give besides.
        fused: whether the device's own cross-entropy is taken where it computes what is asked for: not for logits that
            are capped, nor for log-sum-exps.
        block_bytes: most bytes of a block's logits.
        kept_bytes: most bytes of probabilities that are kept for the backward pass.
    """
    plan = _plan(hidden, weight.shape[0], shape, extras, fused=fused, block_bytes=block_bytes, kept_bytes=kept_bytes)
    cast_bias = None if bias is None else bias.to(hidden.dtype)
    logps, means, log_sums, entropies, correct, squares = _BlockwiseHead.apply(
        hidden, weight, cast_bias, targets, plan, extras
    )
    if shape.softcap is None:
        with torch.set_grad_enabled(extras.normalizers and torch.is_grad_enabled()):
            means = _mean_logits(hidden, weight, bias, shape.scale)
    if not extras.token_metrics:
        entropies = correct = None
    return TokenScores(
        logps,
        means if extras.normalizers else means.detach(),
        entropies,
        correct,
        squares if extras.log_sum_squares else None,
        log_sums if extras.normalizers else None,
    )


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
    logits = product(hidden, weight, bias).to(_precise(hidden.dtype))
    if shape.scale != 1.0:
        logits = logits * shape.scale
    if shape.softcap is None:
        return logits, logits
    squashed = torch.tanh_(logits / shape.softcap)
    return squashed * shape.softcap, squashed


class _Plan(NamedTuple):
    """How the rows are computed."""

    shape: HeadShape
    rows_a_block: int
    kept_rows: int
    """Rows whose probabilities may be kept."""
    fused: bool = False
    """Whether a block's log-probabilities and its derivative are the device's own operators."""

    def blocks(self, rows: int) -> list[slice]:
        """As few as there may be, of nearly equal size: a small remainder would run at a lower rate."""
        size = math.ceil(rows / max(1, math.ceil(rows / self.rows_a_block)))
        return [slice(start, min(rows, start + size)) for start in range(0, rows, max(1, size))]


def _plan(
    hidden: Tensor,
    vocabulary: int,
    shape: HeadShape,
    extras: HeadExtras,
    *,
    fused: bool,
    block_bytes: int,
    kept_bytes: int,
) -> _Plan:
    simple = shape.softcap is None and not extras.normalizers
    fused = fused and simple
    kept_size = vocabulary * (4 if fused else hidden.element_size())
    kept_rows = kept_bytes // kept_size if simple and torch.is_grad_enabled() else 0
    rows = max(1, block_bytes // (vocabulary * 4))
    return _Plan(shape, min(rows, MOST_ROWS) if fused else rows, kept_rows, fused)


def _normalise(logits: Tensor, targets: Tensor, plan: _Plan) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a block, their log-sum-exp, the targets' logits; fused, log-probabilities, whose log-sum-exp is 0."""
    if plan.fused:
        of_targets, log_probs = log_probabilities(logits, targets)
        return log_probs, torch.zeros_like(of_targets), of_targets
    return logits, _log_sum_exp(logits), logits.gather(1, targets[:, None]).squeeze(1)


def _rows_at_once(logits: Tensor) -> int:
    """What the CPU's caches hold; everything on an accelerator, where each call is a launch."""
    if logits.device.type != "cpu":
        return max(1, logits.shape[0])
    return max(1, CACHED_BYTES // (logits.shape[1] * logits.element_size()))


def _log_sum_exp(logits: Tensor) -> Tensor:
    """Over the vocabulary, a few rows at a time: the exponentials need no memory of the logits' size."""
    return torch.cat([torch.logsumexp(part, dim=1) for part in logits.split(_rows_at_once(logits))])


def _probabilities_in_place(logits: Tensor, log_sums: Tensor, dtype: torch.dtype) -> Tensor:
    """Softmax written over its logits, then cast."""
    rows = _rows_at_once(logits)
    for part, sums in zip(logits.split(rows), log_sums.split(rows), strict=True):
        part.sub_(sums[:, None]).exp_()
    return logits.to(dtype)


class _BlockwiseHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        plan: _Plan,
        extras: HeadExtras,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        weight = compute_copy(weight, hidden.dtype)  # the gradient goes to the weight itself, in its own dtype
        rows, precise, shape = hidden.shape[0], _precise(hidden.dtype), plan.shape
        logps, log_sums, means = (hidden.new_empty(rows, dtype=precise) for _ in range(3))
        entropies, correct = (hidden.new_empty(rows if extras.token_metrics else 0, dtype=precise) for _ in range(2))
        squares = hidden.new_empty(rows if extras.log_sum_squares else 0, dtype=precise)
        kept: dict[int, Tensor] = {}
        with torch.autocast(hidden.device.type, enabled=False):
            for block in plan.blocks(rows):
                logits, _ = _block_logits(hidden[block], weight, bias, shape)
                logits, log_sum, target_logits = _normalise(logits, targets[block], plan)
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
                if block.stop <= plan.kept_rows and any(ctx.needs_input_grad):
                    if not any(ctx.needs_input_grad[1:3]):
                        probabilities = _probabilities_in_place(logits, log_sum, hidden.dtype)
                        kept[block.start] = _direction(probabilities, weight, targets[block], shape)
                    elif plan.fused:
                        kept[block.start] = logits
                    else:
                        kept[block.start] = _probabilities_in_place(logits, log_sum, hidden.dtype)
        ctx.save_for_backward(hidden, weight, bias, targets, log_sums)
        ctx.plan, ctx.kept = plan, kept
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(entropies, correct, squares)
        return logps, means, log_sums, entropies, correct, squares

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (the decorator changes the type)
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_sums = ctx.saved_tensors
        upstream, shape = _Upstream.read(grad_outputs, log_sums), ctx.plan.shape
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=_precise(weight.dtype)) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=_precise(bias.dtype)) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for block in ctx.plan.blocks(hidden.shape[0]):
                if block.start in ctx.kept and grad_hidden is not None and not (wants_weight or wants_bias):
                    grad_hidden[block] = ctx.kept[block.start] * upstream.logps[block, None].to(hidden.dtype)
                    continue
                kept = ctx.kept.pop(block.start, None)  # it is written over, so a second backward pass recomputes
                rows = (hidden[block], targets[block], log_sums[block], upstream.rows(block))
                derive = _fused_grad_projection if ctx.plan.fused else _grad_projection
                grad = derive(rows, weight, bias, shape, kept).to(weight.dtype)
                if grad_hidden is not None:
                    grad_hidden[block] = product(grad, weight.t())
                if grad_weight is not None:
                    _accumulate_product(grad_weight, grad, hidden[block])
                if grad_bias is not None:
                    grad_bias += grad.sum(dim=0, dtype=grad_bias.dtype)
        return (
            grad_hidden,
            grad_weight,  # autograd gives it the dtype of the weight that came in
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
            *(None,) * 3,
        )


class _Upstream(NamedTuple):
    """Derivatives of what is differentiated by what each row gave, each (rows,)."""

    logps: Tensor
    log_sums: Tensor | None
    means: Tensor | None

    @classmethod
    def read(cls, grad_outputs: tuple[Tensor | None, ...], like: Tensor) -> _Upstream:
        logps, means, log_sums = grad_outputs[:3]
        return cls(torch.zeros_like(like) if logps is None else logps, log_sums, means)

    def rows(self, block: slice) -> _Upstream:
        return _Upstream(*(None if part is None else part[block] for part in self))  # pyright: ignore[reportArgumentType]


def _direction(probabilities: Tensor, weight: Tensor, targets: Tensor, shape: HeadShape) -> Tensor:
    """Derivative of the target's log-probability by the hidden state: scale · (W[target] - Σ p W)."""
    direction = weight.index_select(0, targets).sub_(product(probabilities, weight.t()))
    return direction.mul_(shape.scale) if shape.scale != 1.0 else direction


def _grad_projection(
    rows: tuple[Tensor, Tensor, Tensor, _Upstream],
    weight: Tensor,
    bias: Tensor | None,
    shape: HeadShape,
    probabilities: Tensor | None,
) -> Tensor:
    """Derivative by the projection z, through soft cap and scale: of the log-probability onehot(target) - softmax, of
    the log-sum-exp softmax, of the mean 1 / vocabulary.

    Args:
        rows: hidden states, targets, log-sum-exp and upstream derivatives of a block.
        weight: (vocabulary, hidden size).
        bias: (vocabulary,) or None.
        shape: scale and soft cap.
        probabilities: softmax, written over; None computes the logits again.
    """
    hidden, targets, log_sums, upstream = rows
    squashed = None
    if probabilities is None:
        logits, squashed = _block_logits(hidden, weight, bias, shape)
        probabilities = _probabilities_in_place(
            logits.clone() if shape.softcap is not None else logits, log_sums, logits.dtype
        )
    of_softmax = -upstream.logps if upstream.log_sums is None else upstream.log_sums - upstream.logps
    grad = probabilities.mul_(of_softmax[:, None].to(probabilities.dtype))
    grad.scatter_add_(1, targets[:, None], upstream.logps[:, None].to(probabilities.dtype))
    if upstream.means is not None:
        grad.add_(upstream.means[:, None].to(grad.dtype), alpha=1 / grad.shape[1])
    if shape.softcap is not None and squashed is not None:
        grad.mul_(1 - squashed.square())
    return grad.mul_(shape.scale) if shape.scale != 1.0 else grad


def _fused_grad_projection(
    rows: tuple[Tensor, Tensor, Tensor, _Upstream],
    weight: Tensor,
    bias: Tensor | None,
    shape: HeadShape,
    log_probs: Tensor | None,
) -> Tensor:
    """As `_grad_projection`, from log-probabilities, of a head without a soft cap; nothing is written over."""
    hidden, targets, _, upstream = rows
    if log_probs is None:
        log_probs = log_probabilities(_block_logits(hidden, weight, bias, shape)[0], targets)[1]
    grad = logits_gradient(upstream.logps, log_probs, targets)
    return grad.mul_(shape.scale) if shape.scale != 1.0 else grad


def _accumulate_product(total: Tensor, grad: Tensor, hidden: Tensor) -> None:
    """Add gradᵀ · hidden to the total, in place where the dtypes agree."""
    if total.dtype == grad.dtype:
        total.addmm_(grad.t(), hidden)
    else:
        total += (grad.t() @ hidden).to(total.dtype)
