"""How many parameters a model has, and how much memory training it will take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from burnish.device.attention import BURNISH_FLEX, FLEX
from burnish.scoring.head import BLOCK_BYTES

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAMW_STATES = 2
LOGITS_COPIES = 2
"""A block's logits and their gradient."""


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Numbers of parameters; shared ones count once."""

    total: int
    trainable: int
    embedding: int
    head: int
    """Of the output head; the same parameters as `embedding` where the two are tied."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes that training holds at its peak, by what they are for."""

    weights: int
    copies: int
    """Of matrices in the compute dtype, where that is not the stored one."""
    gradients: int
    optimizer: int
    reference: int
    activations: int
    logits: int
    gathered: int = 0
    """What exchanging with other devices holds: DDP's buckets, or the layers that FSDP2 has put together."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(asdict(self).values())

    def as_dict(self) -> dict[str, int]:
        """The parts that are there by name, and their sum as `total`."""
        return {name: size for name, size in asdict(self).items() if size} | {"total": self.total}


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count a causal language model's parameters (transformers or peft)."""
    plain: Any = _plain(model)
    return ParameterCounts(
        total=sum(parameter.numel() for parameter in model.parameters()),
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        embedding=sum(parameter.numel() for parameter in plain.get_input_embeddings().parameters()),
        head=sum(parameter.numel() for parameter in (plain.get_output_embeddings() or plain.score).parameters()),
    )


def estimate_memory(
    model: nn.Module,
    *,
    tokens: int,
    row_tokens: int | None = None,
    counted_tokens: int | None = None,
    has_frozen_reference: bool = False,
    reference_dtype: torch.dtype | None = None,
    compute_dtype: torch.dtype = torch.float32,
    holds_activations: bool = True,
) -> MemoryEstimate:
    """Estimate the memory of training on one device from shapes alone, in bytes, at the peak of a later step.

    Exact: weights and buffers as they are stored; gradients, one for each trainable weight; AdamW's two moments; a
    frozen copy as reference (none where the adapter switched off is the reference). Half-precision compute adds a copy
    of every matrix that is multiplied; with checkpointing and frozen weights, of one layer's and the head's.

    Activations are what a decoder layer of the Llama family keeps for its backward pass (`_kept_elements`), for each
    token and layer, besides its mask row in the compute dtype (sdpa), or a row of attention weights for each head
    (eager; float32 as well under autocast, and once more with soft-capping). With gradient checkpointing it is the
    residual stream a layer, in float32, and one layer whole. An NPU's fused attention keeps one mask for all layers,
    and so less.

    Args:
        model: on any device, also the meta device.
        tokens: tokens of a micro-batch, padding included.
        row_tokens: length of its longest row; None takes all tokens for one row, the dearest case.
        counted_tokens: those that meet the vocabulary; None takes all.
        has_frozen_reference: whether a second model is held as reference.
        reference_dtype: its storage, None as the policy's.
        compute_dtype: what autocast computes in.
        holds_activations: False where the host has them, but for the layer that is being computed.
    """
    trainable = sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)
    weights = sum(_bytes(parameter) for parameter in model.parameters()) + sum(_bytes(b) for b in model.buffers())
    config = _plain(model).config.get_text_config()
    block = min(BLOCK_BYTES, (counted_tokens or tokens) * config.vocab_size * 4)
    head = _plain(model).get_output_embeddings()
    trains_head = head is not None and head.weight.requires_grad
    return MemoryEstimate(
        weights=weights,
        copies=_copied_elements(model, config) * compute_dtype.itemsize if compute_dtype != torch.float32 else 0,
        gradients=trainable,
        optimizer=ADAMW_STATES * trainable,
        reference=_reference_bytes(model, reference_dtype) if has_frozen_reference else 0,
        activations=_activation_bytes(
            model, config, tokens, row_tokens or tokens, compute_dtype, holds_all=holds_activations
        ),
        logits=(LOGITS_COPIES if trains_head else 1) * block,
    )


def _plain(model: nn.Module) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _reference_bytes(model: nn.Module, dtype: torch.dtype | None) -> int:
    return sum(p.numel() * (dtype.itemsize if dtype else p.element_size()) for p in model.parameters())


def _copied_elements(model: nn.Module, config: Any) -> int:
    """Elements of the matrices that autocast copies; an input embedding of its own is looked up, not multiplied."""
    counts = count_parameters(model)
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
    is_tied = getattr(config, "tie_word_embeddings", False)
    matrices -= 0 if is_tied else counts.embedding
    if not _is_checkpointing(model) or counts.trainable == counts.total:
        return matrices  # autocast keeps the copies of trained weights until the forward pass ends
    return (matrices - counts.head) // config.num_hidden_layers + counts.head


def _activation_bytes(
    model: nn.Module, config: Any, tokens: int, row_tokens: int, compute_dtype: torch.dtype, *, holds_all: bool
) -> int:
    hidden, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    size = compute_dtype.itemsize
    is_half = size < torch.float32.itemsize
    precise, elements = _kept_elements(model, config, is_half=is_half)
    attention = getattr(config, "_attn_implementation", "sdpa")
    quadratic = 0 if attention in (FLEX, BURNISH_FLEX) else size  # a block mask is small, and no layer copies it
    if attention == "eager":
        has_softcap = getattr(config, "attn_logit_softcapping", None) is not None
        quadratic = heads * (size * (2 if has_softcap else 1) + (torch.float32.itemsize if is_half else 0))
    layer = tokens * (precise * torch.float32.itemsize + elements * size + row_tokens * quadratic)
    if not holds_all:
        return layer
    if _is_checkpointing(model):
        return layer + layers * tokens * hidden * torch.float32.itemsize
    return layers * layer


def _kept_elements(model: nn.Module, config: Any, *, is_half: bool) -> tuple[int, int]:
    """Elements for each token that a layer keeps in float32, and in the compute dtype.

    With h hidden, q and k the widths of all query and of all key heads, and i intermediate (times the active experts),
    a trained layer keeps 6h, and 4q + 4i; 2q + 2k more with norms on queries and keys; h for each norm more than two;
    2h of casts in half precision. A frozen layer with adapters keeps no normalised copies and no input that only a
    weight's gradient needs: 2h, and 4q + 3i and what adapters take in, which in half precision is cast for each.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or hidden // heads
    queries, keys = heads * head_width, (getattr(config, "num_key_value_heads", None) or heads) * head_width
    inner = _intermediate(config)
    norms = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name.rsplit(".", 1)[-1].endswith("norm")}
    more = 2 * queries + 2 * keys if "q_norm" in norms else 0
    more += max(0, len(norms - {"q_norm", "k_norm", "norm"}) - 2) * hidden
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if any("norm" in name for name in trained):
        return 6 * hidden, 4 * queries + 4 * inner + more + (2 * hidden if is_half else 0)
    has = {part: any(f".{part}." in name for name in trained) for part in _PROJECTIONS}
    attending, gating = has["q_proj"] + has["k_proj"] + has["v_proj"], has["gate_proj"] + has["up_proj"]
    inputs = (attending if is_half else min(attending, 1)) + (gating if is_half else min(gating, 1))
    inputs = inputs * hidden + has["down_proj"] * inner + (has["o_proj"] * queries if is_half else 0)
    return 2 * hidden, 4 * queries + 3 * inner + more + inputs


def _is_checkpointing(model: Any) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _intermediate(config: Any) -> int:
    experts = getattr(config, "num_experts_per_tok", None)
    if experts:
        shared = getattr(config, "shared_expert_intermediate_size", None) or 0
        width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
        return experts * width + shared
    return getattr(config, "intermediate_size", None) or 4 * config.hidden_size
