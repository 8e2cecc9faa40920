"""CPU references for the vendor's own operators, forward and backward, from the vendor's documents of each.

The Python interfaces and the derivative formulas are the wheel's own: only the innermost kernels are replaced.
tests/npu/test_stand_ins.py compares each with plain torch on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from npu.simulator.host_view import host_views, is_on_device, to_devices
from npu.simulator.log import LAUNCHED
from npu.simulator.refusals import refuse

COMPRESSED_MASK = (2048, 2048)
"""Shape of the mask that sparse modes 2, 3 and 4 take."""
NO_MASK, LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL = 0, 2, 3
_LIBRARIES: list[torch.library.Library] = []


def install_vendor_kernels() -> None:
    """Replace the kernels that training meets: attention, RMSNorm, rotary, SwiGLU, cross-entropy, matmul's gradient."""
    kernels: dict[str, Callable[..., Any]] = {
        "npu::npu_fusion_attention": _attention,
        "npu::npu_fusion_attention_grad": _attention_grad,
        "npu::npu_rms_norm": _rms_norm,
        "npu::npu_rms_norm_backward": _rms_norm_backward,
        "npu::npu_rotary_mul": _rotary,
        "npu::npu_rotary_mul_backward": _rotary_backward,
        "npu::npu_swiglu": _swiglu,
        "npu::npu_swiglu_backward": _swiglu_backward,
        "npu::npu_cross_entropy_loss": _cross_entropy,
        "npu::npu_cross_entropy_loss_backward": _cross_entropy_backward,
        "aten::matmul_backward": _matmul_backward,
    }
    libraries = {name: torch.library.Library(name, "IMPL") for name in ("npu", "aten")}
    _LIBRARIES.extend(libraries.values())
    for full, kernel in kernels.items():
        namespace, name = full.split("::")
        libraries[namespace].impl(name, _on_host(full, kernel), "PrivateUse1", allow_override=True)
    for key in ("AutogradPrivateUse1", "PrivateUse1"):
        libraries["aten"].impl("scaled_dot_product_attention", _sdpa, key, allow_override=True)


def _on_host(name: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    base = name.split("::")[1]

    def kernel(*args: Any, **keywords: Any) -> Any:
        LAUNCHED[name] += 1
        refuse(base, (args, keywords))
        device = next(value.device for value in args if is_on_device(value))
        host_args, host_keywords = host_views((args, keywords))
        with torch.no_grad():
            result = reference(*host_args, **host_keywords)
        return to_devices(result, device)

    return kernel


class _Differentiating:
    """Autograd inside a backend kernel, where the dispatcher has switched it off."""

    _KEYS = ("AutogradFunctionality", "AutogradOther", "AutogradCPU", "ADInplaceOrView", "AutogradPrivateUse1")

    def __enter__(self) -> None:
        included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
        for key in self._KEYS:
            excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
        self._guard = torch._C._ForceDispatchKeyGuard(included, excluded)
        self._guard.__enter__()
        self._grad = torch.enable_grad()
        self._grad.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grad.__exit__(kind, error, trace)
        self._guard.__exit__(kind, error, trace)


def _gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    with _Differentiating():
        leaves = [value.detach().requires_grad_() for value in inputs]
        found = torch.autograd.grad(function(*leaves), leaves, grad, allow_unused=True)
    return tuple(
        torch.zeros_like(value) if g is None else g.contiguous() for value, g in zip(inputs, found, strict=True)
    )


# Attention. In the vendor's mask True hides; a query that sees nothing gives 0.


def _attend(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
    """One sequence: (heads, tokens, width) each; key heads are shared by groups of query heads."""
    shared = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(shared, 0), value.repeat_interleave(shared, 0)
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.nan_to_num(scores.softmax(-1)) @ value.float()


def _hidden_keys(mask: Tensor | None, mode: int, queries: int, keys: int, sequence: int) -> Tensor | None:
    if mask is None:
        return None  # whatever the sparse mode says
    if mode == NO_MASK:
        mask = mask.bool()
        return mask if mask.dim() == 2 else mask[min(sequence, mask.shape[0] - 1), 0]
    if mode not in (LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL):
        raise NotImplementedError(f"the stand-in has no sparse_mode {mode}")
    if tuple(mask.shape) != COMPRESSED_MASK:
        raise RuntimeError(f"sparse_mode {mode} takes a mask of {COMPRESSED_MASK}, not {tuple(mask.shape)}")
    shift = keys - queries if mode == RIGHT_DOWN_CAUSAL else 0
    return torch.ones(queries, keys).triu(1 + shift).bool()


def _attend_all(
    query: Tensor, key: Tensor, value: Tensor, layout: str, mask: Tensor | None, scale: float, mode: int, lengths: Any
) -> Tensor:
    if layout == "TND":
        outputs, query_start, key_start = [], 0, 0
        for query_end, key_end in zip(*lengths, strict=True):
            parts = (query[query_start:query_end], key[key_start:key_end], value[key_start:key_end])
            hidden = _hidden_keys(mask, mode, query_end - query_start, key_end - key_start, 0)
            outputs.append(_attend(*(part.transpose(0, 1) for part in parts), hidden, scale).transpose(0, 1))
            query_start, key_start = query_end, key_end
        return torch.cat(outputs).to(query.dtype)
    if layout not in ("BNSD", "BSND"):
        raise NotImplementedError(f"the stand-in has no layout {layout}")
    if layout == "BSND":
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    outputs = [
        _attend(query[i], key[i], value[i], _hidden_keys(mask, mode, query.shape[2], key.shape[2], i), scale)
        for i in range(query.shape[0])
    ]
    joined = torch.stack(outputs).to(query.dtype)
    return joined.transpose(1, 2).contiguous() if layout == "BSND" else joined


def _attention(query: Tensor, key: Tensor, value: Tensor, head_num: int, layout: str, *rest: Any, **named: Any) -> Any:
    given = _attention_options(rest, named)
    if given.get("keep_prob", 1.0) != 1.0:
        raise NotImplementedError("the stand-in has no attention dropout")
    output = _attend_all(query, key, value, layout, given.get("atten_mask"), given.get("scale", 1.0), *_sparse(given))
    none = torch.zeros(8)
    return output, none, none, torch.zeros(0), 0, 0, 0


def _attention_grad(
    query: Tensor, key: Tensor, value: Tensor, grad: Tensor, head_num: int, layout: str, **named: Any
) -> Any:
    mask, scale, (mode, lengths) = named.get("atten_mask"), named.get("scale_value", 1.0), _sparse(named)

    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _attend_all(q, k, v, layout, mask, scale, mode, lengths)

    return *_gradients(forward, (query, key, value), grad), torch.zeros(0), torch.zeros(0)


def _attention_options(rest: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    first = ("pse", "padding_mask", "atten_mask", "scale", "keep_prob")
    later = ("pre_tockens", "next_tockens", "inner_precise", "prefix", "actual_seq_qlen", "actual_seq_kvlen")
    return dict(zip((*first, *later, "sparse_mode"), rest, strict=False)) | named


def _sparse(given: dict[str, Any]) -> tuple[int, Any]:
    return given.get("sparse_mode", 0), (given.get("actual_seq_qlen"), given.get("actual_seq_kvlen"))


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The vendor's route: its fused attention for a boolean mask or none, else torch's own arithmetic."""
    if (attn_mask is not None and attn_mask.dtype != torch.bool) or query.dim() != 4:
        math: Any = torch.ops.aten._scaled_dot_product_attention_math
        return math(query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa)[0]
    hidden = None if attn_mask is None else torch.logical_not(attn_mask)
    if is_causal:
        hidden = torch.triu(torch.ones(COMPRESSED_MASK, dtype=torch.bool, device=query.device), 1)
    return torch.ops.npu.npu_fusion_attention(
        query,
        key,
        value,
        query.shape[1],
        "BNSD",
        atten_mask=hidden,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        keep_prob=1.0 - dropout_p,
        sparse_mode=LEFT_UP_CAUSAL if is_causal else NO_MASK,
    )[0]


# The small operators.


def _rms_norm(values: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    if values.dtype != gamma.dtype:
        raise RuntimeError(f"npu_rms_norm: gamma is {gamma.dtype} and the input {values.dtype}")
    scale = (values.float().pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()
    return (values.float() * scale * gamma.float()).to(values.dtype), scale


def _rms_norm_backward(grad: Tensor, values: Tensor, gamma: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    epsilon = (scale[..., :1].double() ** -2 - values.double().pow(2).mean(-1, keepdim=True)).float()

    def forward(given: Tensor, weight: Tensor) -> Tensor:
        inverse = (given.float().pow(2).mean(-1, keepdim=True) + epsilon).rsqrt()
        return (given.float() * inverse * weight.float()).to(given.dtype)

    to_values, to_gamma = _gradients(forward, (values, gamma), grad)
    return to_values, to_gamma.float()


def _rotated(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = values.chunk(2, dim=-1)
    return values * cosine + torch.cat((-second, first), dim=-1) * sine


def _rotary(values: Tensor, cosine: Tensor, sine: Tensor, rotary_mode: str = "half", rotate: Any = None) -> Tensor:
    if rotary_mode != "half" or values.dim() != 4:
        raise NotImplementedError(f"the stand-in has no rotary_mode {rotary_mode} in {values.dim()} axes")
    return _rotated(values, cosine, sine)


def _rotary_backward(grad: Tensor, values: Tensor, cosine: Tensor, sine: Tensor, rotary_mode: str = "half") -> Any:
    return _gradients(_rotated, (values, cosine, sine), grad)


def _gated(values: Tensor, dim: int = -1) -> Tensor:
    gate, up = values.chunk(2, dim=dim)
    return torch.nn.functional.silu(gate) * up


def _swiglu(values: Tensor, dim: int = -1) -> Tensor:
    return _gated(values, dim)


def _swiglu_backward(grad: Tensor, values: Tensor, dim: int = -1) -> Tensor:
    return _gradients(lambda given: _gated(given, dim), (values,), grad)[0]


def _cross_entropy(
    logits: Tensor, target: Tensor, weight: Any = None, reduction: str = "mean", *rest: Any, **named: Any
) -> Any:
    if reduction != "none" or weight is not None:
        raise NotImplementedError("the stand-in knows reduction none without weights")
    log_probabilities = logits.float().log_softmax(-1)
    losses = -log_probabilities.gather(1, target[:, None]).squeeze(1)
    return losses.to(logits.dtype), log_probabilities.to(logits.dtype), torch.zeros(0), torch.zeros(0)


def _cross_entropy_backward(
    grad: Tensor, log_probabilities: Tensor, target: Tensor, *rest: Any, **named: Any
) -> Tensor:
    probabilities = log_probabilities.float().exp()
    probabilities[torch.arange(len(target)), target] -= 1
    return (probabilities * grad.float()[:, None]).to(log_probabilities.dtype)


def _matmul_backward(grad: Tensor, left: Tensor, right: Tensor, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
    found = _gradients(torch.matmul, (left, right), grad)
    return tuple(value if want else None for value, want in zip(found, wanted, strict=True))
