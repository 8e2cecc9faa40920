"""The vendor's operators behind the interfaces of transformers' modules; each falls back where its limits end.

Limits and layouts are those of the vendor's documents for torch_npu 2.13. On the CPU each is the model's own code: a
model that goes to its devices in slices is checked on the host first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "burnish_npu"
"""What the model's configuration calls the fused attention."""
_COMPRESSED_MASK = 2048
"""Side of the upper-triangular mask that stands for causal attention of any length."""
_NO_MASK, _CAUSAL = 0, 2
_ROTARY_WIDTH = 896
_HIDDEN, _FUSED = "_burnish_hidden", "_burnish_fused"
"""Marks on tensors that a forward pass hands from layer to layer."""
_causal_masks: dict[torch.device, Tensor] = {}


def vendor() -> Any:
    """torch_npu itself."""
    import torch_npu  # pyright: ignore[reportMissingImports]

    return torch_npu


def npu_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by transformers' interface, as one operator forward and one backward.

    Key heads are shared by groups of query heads inside the operator, where sdpa under a mask would copy them. The
    vendor's mask is True where a key is hidden, and is made once for all layers that get the same mask.

    Args:
        module: the attention layer.
        query: (rows, heads, tokens, head size).
        key: (rows, key heads, tokens, head size).
        value: as key.
        attention_mask: (rows, 1, tokens, tokens) bool, True where the query sees the key; None is causal, or all.
        dropout: of attention weights.
        scaling: of the scores.
        is_causal: None asks the module.
        kwargs: what other attentions take; sliding_window must be in the mask already.

    Returns:
        (rows, tokens, heads, head size), and no weights.

    Raises:
        ValueError: a window that no mask holds: the operator would attend to everything.
    """
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not is_on_npu(query):
        return _plain_attention()(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=causal, **kwargs
        )
    window = kwargs.get("sliding_window")
    if attention_mask is None and window is not None and key.shape[2] > window:
        raise ValueError(f"a sliding window of {window} tokens came without a mask, and would be dropped")
    mode, hidden = _NO_MASK, None
    if attention_mask is not None:
        hidden = _hidden_keys(attention_mask)
    elif causal and query.shape[2] > 1:
        mode, hidden = _CAUSAL, _causal_mask(query.device)
    output = vendor().npu_fusion_attention(
        *_one_dtype(query, key, value),
        query.shape[1],
        "BNSD",
        atten_mask=hidden,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        keep_prob=1.0 - dropout,
        sparse_mode=mode,
    )[0]
    return output.transpose(1, 2).contiguous(), None


def is_on_npu(tensor: Tensor) -> bool:
    """Whether the vendor's kernels can take it."""
    return tensor.device.type == "npu"


def _plain_attention() -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward


def _one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Autocast's dtype where it is on: it knows nothing of the vendor's operators."""
    kind = tensors[0].device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensors[-1].dtype
    return tuple(tensor.to(dtype) for tensor in tensors)


def _hidden_keys(mask: Tensor) -> Tensor:
    """The vendor's form of a mask; kept on the mask itself, which all layers of a forward pass share."""
    hidden = getattr(mask, _HIDDEN, None)
    if hidden is None:
        hidden = torch.logical_not(mask)
        setattr(mask, _HIDDEN, hidden)
    return hidden


def _causal_mask(device: torch.device) -> Tensor:
    if device not in _causal_masks:
        side = (_COMPRESSED_MASK, _COMPRESSED_MASK)
        _causal_masks[device] = torch.triu(torch.ones(side, dtype=torch.bool, device=device), 1)
    return _causal_masks[device]


def npu_rms_norm(module: Any, hidden_states: Tensor) -> Tensor:
    """RMSNorm's forward: weight · x / rms(x) in one operator, which wants both in one dtype: the wider of the two."""
    if not is_on_npu(hidden_states):
        return type(module).forward(module, hidden_states)
    dtype = torch.promote_types(hidden_states.dtype, module.weight.dtype)
    return vendor().npu_rms_norm(hidden_states.to(dtype), module.weight.to(dtype), module.variance_epsilon)[0]


def npu_swiglu(module: Any, x: Tensor) -> Tensor:
    """Forward of a gated MLP: down(silu(gate(x)) · up(x))."""
    if not is_on_npu(x):
        return type(module).forward(module, x)
    joined = torch.cat((module.gate_proj(x), module.up_proj(x)), dim=-1)
    return module.down_proj(vendor().npu_swiglu(joined, dim=-1))


def npu_angles(module: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The forward of a model's rotary embedding, whose angles say that this model rotates by the fused operator."""
    cosine, sine = type(module).forward(module, *args, **kwargs)
    setattr(cosine, _FUSED, is_on_npu(cosine))
    return cosine, sine


def fused_rotary(plain: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """apply_rotary_pos_emb for angles that `npu_angles` made, and the architecture's own for all others.

    Partial rotation and widths beyond the operator's limit are left to the architecture's code.
    """

    def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        width = q.shape[-1]
        fits = q.dim() == 4 and unsqueeze_dim == 1 and cos.shape[-1] == width < _ROTARY_WIDTH and width % 2 == 0
        if not (fits and getattr(cos, _FUSED, False)):
            return plain(q, k, cos, sin, unsqueeze_dim)
        dtype = torch.promote_types(q.dtype, cos.dtype)  # as the model's own product: angles keep their precision
        cosine, sine = cos.unsqueeze(1).to(dtype), sin.unsqueeze(1).to(dtype)
        multiply = vendor().npu_rotary_mul
        return multiply(q.to(dtype), cosine, sine), multiply(k.to(dtype), cosine, sine)

    rotate.plain = plain  # pyright: ignore[reportFunctionMemberAccess] (what a second fusing must not wrap again)
    return rotate
