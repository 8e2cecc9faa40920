"""What is known of architectures: how their attention and head work, and whether rows may share a prompt."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from burnish.device.attention import BURNISH_FLEX
from burnish.device.fused.kernels import ATTENTION as FUSED_ATTENTION
from burnish.scoring.head import HeadShape
from burnish.scoring.tree_attention import NAME as TREE_ATTENTION

_SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}
_TAKE_A_MASK = {"sdpa", "eager", TREE_ATTENTION, BURNISH_FLEX, FUSED_ATTENTION}
"""Attentions to which a mask of tree rows can be given."""
PACKED_WITHOUT_CHECK = frozenset({"llama", "qwen2", "qwen3", "mistral", "granite", "cohere"})
"""Architectures whose packed rows the test suite compares with separate ones."""
_NO_POSITION_IDS = "its positions are not given by ids"
UNSHAREABLE = {
    "bloom": _NO_POSITION_IDS,
    "mpt": _NO_POSITION_IDS,
    "falcon": "it may use alibi positions",
    "mamba": "its layers are recurrent",
    "mamba2": "its layers are recurrent",
    "falcon_mamba": "its layers are recurrent",
    "rwkv": "its layers are recurrent",
    "recurrent_gemma": "its layers are recurrent",
    "jamba": "some layers are recurrent",
    "zamba": "some layers are recurrent",
    "zamba2": "some layers are recurrent",
    "bamba": "some layers are recurrent",
    "falcon_h1": "some layers are recurrent",
    "granitemoehybrid": "some layers are recurrent",
    "nemotron_h": "some layers are recurrent",
    "lfm2": "some layers are convolutions over neighbours in the row",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What scoring needs to know of a model."""

    head: HeadShape
    layer_types: tuple[str, ...]
    """The distinct kinds of attention layers."""
    window: int | None
    """Window of sliding attention, in positions."""
    unshareable: str = ""
    """Why a prompt cannot be shared by its completions; empty where it can."""
    mask_by_layer_type: bool = field(default=False)
    """Whether the decoder takes a dict of masks, one for each layer type."""
    packable: bool = field(default=False)
    """Whether its attention may take the groups of one packed row apart; a comparison confirms it."""


def describe_architecture(model: nn.Module) -> Architecture:
    """Read a causal language model's configuration (transformers; adapters unwrapped by the caller)."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layer_types = tuple(sorted(set(getattr(text, "layer_types", None) or ())))
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    if not layer_types:
        layer_types = ("full_attention",) if window is None else ("sliding_attention",)
    unshareable = _why_unshareable(model, text, layer_types)
    return Architecture(
        head=_head_shape(text),
        layer_types=layer_types,
        window=window,
        unshareable=unshareable,
        mask_by_layer_type=len(layer_types) > 1,
        packable=not unshareable and _is_packable(model, text, layer_types),
    )


def _is_packable(model: nn.Module, config: Any, layer_types: tuple[str, ...]) -> bool:
    """Plain attention through transformers' interface, which hands on what it is not asked to know."""
    parameters = inspect.signature(decoder_of(model).forward).parameters.values()
    return (
        layer_types == ("full_attention",)
        and config._attn_implementation in ("sdpa", TREE_ATTENTION)
        and bool(getattr(model, "_supports_attention_backend", False))
        and any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    )


def _head_shape(config: Any) -> HeadShape:
    scale = 1.0
    if getattr(config, "logits_scaling", None):  # Granite divides
        scale /= config.logits_scaling
    if getattr(config, "logit_scale", None):  # Cohere multiplies
        scale *= config.logit_scale
    return HeadShape(scale=scale, softcap=getattr(config, "final_logit_softcapping", None))


def _why_unshareable(model: nn.Module, config: Any, layer_types: tuple[str, ...]) -> str:
    if config.model_type in UNSHAREABLE:
        return f"{config.model_type}: {UNSHAREABLE[config.model_type]}"
    other = [kind for kind in layer_types if kind not in _SHAREABLE_LAYERS]
    if other:
        return f"{config.model_type} has layers of kind {', '.join(other)}"
    if getattr(config, "_attn_implementation", "sdpa") not in _TAKE_A_MASK:
        return f"attention {config._attn_implementation} takes no mask of its own"
    decoder = decoder_of(model)
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        return f"{config.model_type}: {_NO_POSITION_IDS}"
    return ""


def decoder_of(model: nn.Module) -> nn.Module:
    """The part of a causal language model that gives hidden states."""
    return getattr(model, model.base_model_prefix)  # pyright: ignore[reportArgumentType, reportCallIssue]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, which transformers names as what may not be split; else its longest list of modules."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if layers:
        return layers
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=()))
