"""Layers that take less time and memory on the CPU, and compute the same.

Linear layers go through oneDNN, which is faster than the BLAS library behind torch.nn.Linear for the products with the
weights; RMS norms keep their input and one number a token for the backward pass, where autograd keeps three tensors;
SwiGLU blocks keep what enters the gate and compute the product again. Only the forward methods of single instances are
replaced: parameters, names, hooks and saved files stay as they are, and so does every layer that is not known here.

Under autocast to bfloat16 they compute in bfloat16, as autocast would have them do, with weights that are cast once a
step (scoring.compute_copies), and norms give bfloat16 at once, which is what the linear layers behind them take.
Weights in other dtypes than float32 go their own way.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from burnish.device.cpu_products import linear_kernel, product
from burnish.scoring.compute_copies import compute_copy

RMS_NORMS = frozenset(
    {
        "LlamaRMSNorm",
        "Qwen2RMSNorm",
        "Qwen3RMSNorm",
        "MistralRMSNorm",
        "GraniteRMSNorm",
        "Phi3RMSNorm",
        "SmolLM3RMSNorm",
    }
)
"""Classes that compute weight · x / sqrt(mean(x²) + ε)."""
GATED_BLOCKS = frozenset({"LlamaMLP", "Qwen2MLP", "Qwen3MLP", "MistralMLP", "GraniteMLP", "SmolLM3MLP"})
"""Classes that compute down(act(gate(x)) · up(x))."""


def speed_up_layers(model: nn.Module) -> int:
    """Replace the forward methods of the layers that are known; give their number. Idempotent.

    Args:
        model: on the CPU, adapters in place.
    """
    changed = 0
    for module in model.modules():
        forward = _forward_for(module)
        if forward is not None and "forward" not in vars(module):
            module.forward = types.MethodType(forward, module)
            changed += 1
    return changed


def _forward_for(module: nn.Module) -> Any:
    name = type(module).__name__
    if type(module) is nn.Linear and linear_kernel() is not None:
        return _linear_forward
    if name in RMS_NORMS and hasattr(module, "variance_epsilon"):
        return _norm_forward
    return _gated_forward if name in GATED_BLOCKS and _is_plain_swiglu(module) else None


def _is_plain_swiglu(module: Any) -> bool:
    """Three linear layers without bias or adapter around a SiLU."""
    parts = (module.gate_proj, module.up_proj, module.down_proj)
    is_silu = isinstance(module.act_fn, nn.SiLU) or type(module.act_fn).__name__ == "SiLUActivation"
    return is_silu and all(type(part) is nn.Linear and part.bias is None for part in parts)


def _dtype_for(hidden: Tensor, weight: Tensor) -> torch.dtype | None:
    """What a layer with this weight computes in here: float32, bfloat16 under autocast; None leaves it to itself."""
    if weight.dtype != torch.float32:
        return None
    if torch.is_autocast_enabled("cpu"):
        is_known = torch.get_autocast_dtype("cpu") == torch.bfloat16 and hidden.dtype in (torch.float32, torch.bfloat16)
        return torch.bfloat16 if is_known else None
    return torch.float32 if hidden.dtype == torch.float32 else None


def _linear_forward(self: nn.Linear, input: Tensor) -> Tensor:  # noqa: A002 (torch.nn.Linear's own name)
    dtype = _dtype_for(input, self.weight)
    if dtype is None:
        return torch.nn.functional.linear(input, self.weight, self.bias)
    return _Linear.apply(input.to(dtype), self.weight, self.bias, compute_copy(self.weight, dtype))


def _norm_forward(self: Any, hidden_states: Tensor) -> Tensor:
    dtype = _dtype_for(hidden_states, self.weight)
    if dtype is None:
        return type(self).forward(self, hidden_states)
    return _RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon, dtype)


def _gated_forward(self: Any, x: Tensor) -> Tensor:
    weights = (self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)
    dtype = _dtype_for(x, weights[0])
    if dtype is None:
        return type(self).forward(self, x)
    return _SwiGlu.apply(x.to(dtype), *weights, [compute_copy(weight, dtype) for weight in weights])


class _Linear(torch.autograd.Function):
    """Computes with a copy of the weight in the input's dtype; the gradient goes to the weight itself."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, copy: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, copy)
        bias = None if bias is None else bias.to(hidden.dtype)
        return product(hidden.reshape(-1, hidden.shape[-1]), copy, bias).view(*hidden.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        return (
            product(rows, weight.t()).view(hidden.shape) if wants_hidden else None,
            rows.t() @ hidden.reshape(-1, hidden.shape[-1]) if wants_weight else None,
            rows.sum(dim=0) if wants_bias else None,
            None,
        )


class _RmsNorm(torch.autograd.Function):
    """y = w · x · r, r = 1 / sqrt(mean(x²) + ε). dx = r · (g·w - x · r² · mean(g·w·x)), dw = Σ g · x · r.

    Computed in the weight's dtype, and given in another where that is what the next layer takes.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        precise = hidden.to(weight.dtype)
        inverse = torch.rsqrt(precise.square().mean(dim=-1, keepdim=True) + epsilon)
        ctx.save_for_backward(hidden, weight, inverse)
        return (precise * inverse).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, weight, inverse = ctx.saved_tensors
        normal, grad = hidden.to(weight.dtype) * inverse, grad.to(weight.dtype)
        product = grad * normal
        grad_weight = product.flatten(0, -2).sum(dim=0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None, None
        # mean(g·w·x·r): one product of a matrix and a vector.
        along = torch.mv(product.flatten(0, -2), weight).div_(weight.numel()).view(inverse.shape)
        grad_hidden = torch.mul(grad, weight, out=product).sub_(normal.mul_(along)).mul_(inverse)
        return grad_hidden.to(hidden.dtype), grad_weight, None, None


class _SwiGlu(torch.autograd.Function):
    """down(silu(gate(x)) · up(x)), keeping x and what gate and up gave.

    Takes the three weights, and copies of them in the input's dtype to compute with; gradients go to the weights.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, *parts: Any) -> Tensor:
        gate_weight, up_weight, down_weight = parts[3]
        rows = hidden.reshape(-1, hidden.shape[-1])
        gate, up = product(rows, gate_weight), product(rows, up_weight)
        if not any(ctx.needs_input_grad):
            return product(torch.nn.functional.silu(gate, inplace=True).mul_(up), down_weight).view(hidden.shape)
        ctx.save_for_backward(rows, gate, up, gate_weight, up_weight, down_weight)
        return product(torch.nn.functional.silu(gate).mul_(up), down_weight).view(hidden.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, gate, up, gate_weight, up_weight, down_weight = ctx.saved_tensors
        wants_hidden, wants_gate, wants_up, wants_down = ctx.needs_input_grad[:4]
        rows = grad.reshape(-1, grad.shape[-1])
        active = torch.nn.functional.silu(gate)
        grad_down = rows.t() @ (active * up) if wants_down else None
        grad_product = product(rows, down_weight.t())
        grad_up = active.mul_(grad_product)
        grad_gate = torch.ops.aten.silu_backward(grad_product.mul_(up), gate)
        grad_hidden = None
        if wants_hidden:
            grad_hidden = product(grad_gate, gate_weight.t()).add_(product(grad_up, up_weight.t())).view(grad.shape)
        return (
            grad_hidden,
            grad_gate.t() @ hidden if wants_gate else None,
            grad_up.t() @ hidden if wants_up else None,
            grad_down,
            None,
        )
