"""The vendor's fused operators that a model takes, by their names and arguments, as plain arithmetic of torch.

Their gradients are autograd's. tests/npu/on_device/test_operators.py holds the same arithmetic against the wheel's own
interfaces; here they only have to be there, so that a whole model goes its fused way in a quick test.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from npu.simulator.log import LAUNCHED

_LEFT_UP_CAUSAL = 2


def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    *,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    sparse_mode: int = 0,
) -> tuple[Tensor, ...]:
    """Attention in layout BNSD; True in the mask hides."""
    LAUNCHED["npu::npu_fusion_attention"] += 1
    assert (input_layout, keep_prob, head_num) == ("BNSD", 1.0, query.shape[1]), input_layout
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if atten_mask is not None:
        if sparse_mode == _LEFT_UP_CAUSAL:
            atten_mask = atten_mask[: query.shape[2], : key.shape[2]]
        scores = scores.masked_fill(atten_mask, float("-inf"))
    return (torch.nan_to_num(scores.softmax(-1)).to(value.dtype) @ value,)


def npu_cross_entropy_loss(logits: Tensor, targets: Tensor, *, reduction: str = "mean") -> tuple[Tensor, ...]:
    """Loss of each row and the log-softmax of all."""
    LAUNCHED["npu::npu_cross_entropy_loss"] += 1
    assert (reduction, logits.dtype, targets.dtype) == ("none", torch.float32, torch.int64)
    log_probs = logits.log_softmax(-1)
    return -log_probs.gather(1, targets[:, None]).squeeze(1), log_probs


def npu_cross_entropy_loss_backward(
    grad_loss: Tensor, log_prob: Tensor, target: Tensor, *, reduction: str = "mean"
) -> Tensor:
    """Its derivative by the logits: (softmax - onehot(target)) · grad."""
    LAUNCHED["npu::npu_cross_entropy_loss_backward"] += 1
    assert reduction == "none"
    return (log_prob.exp() * grad_loss[:, None]).scatter_add_(1, target[:, None], -grad_loss[:, None])


def npu_rms_norm(values: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """RMSNorm of one dtype, and the scale."""
    LAUNCHED["npu::npu_rms_norm"] += 1
    assert values.dtype == gamma.dtype
    scale = (values.float().pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()
    return (values.float() * scale * gamma.float()).to(values.dtype), scale


def npu_rotary_mul(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotation of halves."""
    LAUNCHED["npu::npu_rotary_mul"] += 1
    first, second = values.chunk(2, dim=-1)
    return values * cosine + torch.cat((-second, first), dim=-1) * sine


def npu_swiglu(values: Tensor, dim: int = -1) -> Tensor:
    """silu(gate) · up."""
    LAUNCHED["npu::npu_swiglu"] += 1
    gate, up = values.chunk(2, dim=dim)
    return F.silu(gate) * up
