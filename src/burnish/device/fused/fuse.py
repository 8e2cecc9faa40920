"""Gives a model on an NPU the fused operators that its architecture can use. On other devices nothing is touched."""

from __future__ import annotations

import sys
from functools import lru_cache
from types import MethodType
from typing import Any

from torch import nn

from burnish.device.fused.cross_entropy import take_cross_entropy
from burnish.device.fused.kernels import ATTENTION, fused_rotary, npu_angles, npu_attention, npu_rms_norm, npu_swiglu
from burnish.device.fused.table import choose_operators
from burnish.device.pick import Device
from burnish.device.precision import has_bf16

_FORWARDS: dict[str, tuple[str, Any]] = {
    "RMSNorm": ("rms_norm", npu_rms_norm),
    "MLP": ("swiglu", npu_swiglu),
    "RotaryEmbedding": ("rotary", npu_angles),
}
"""End of a module's class name → the operator, and the forward that uses it."""
_SILU = ("silu", "swish")


def fuse_operators(model: nn.Module, device: Device, asked: list[str]) -> list[str]:
    """Let a causal language model (transformers, adapters unwrapped) compute with fused operators.

    Norms, MLPs and angles are changed module by module, attention through the model's configuration. The rotation is a
    function of the architecture's file: it is wrapped, and goes on as before for angles of any other model.

    Args:
        model: on its device, or on the CPU where it will be spread over devices in slices.
        device: nothing happens unless it is an NPU.
        asked: names, or auto, or none. Cards without bfloat16 take none on auto: the vendor's documents list these
            operators for later ones alone (Atlas A2 and on).

    Returns:
        The operators that it uses now, by name.
    """
    if device.kind != "npu":
        return []
    if asked == ["auto"] and not has_bf16(device):
        return []
    config: Any = model.config
    chosen = choose_operators(config.model_type, config._attn_implementation, asked)
    if getattr(config, "hidden_act", "silu") not in _SILU:
        chosen -= {"swiglu"}
    head: nn.Module | None = model.get_output_embeddings()  # pyright: ignore[reportCallIssue, reportAssignmentType]
    if head is None:  # a model that gives rewards
        chosen -= {"cross_entropy"}
    elif "cross_entropy" in chosen:
        take_cross_entropy(head)
    if "attention" in chosen:
        _register()
        config._attn_implementation = ATTENTION
    if "rotary" in chosen:
        _fuse_rotary(model)
    for module in model.modules():
        for suffix, (operator, forward) in _FORWARDS.items():
            if operator in chosen and type(module).__name__.endswith(suffix):
                module.forward = MethodType(forward, module)
    return sorted(chosen)


def _fuse_rotary(model: nn.Module) -> None:
    files = {type(module).__module__ for module in model.modules()}
    for name in files:
        file: Any = sys.modules[name]
        plain = getattr(file, "apply_rotary_pos_emb", None)
        if plain is not None and not hasattr(plain, "plain"):
            file.apply_rotary_pos_emb = fused_rotary(plain)


@lru_cache(maxsize=1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, npu_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
