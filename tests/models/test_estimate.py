from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from burnish.models.adapters import add_adapter
from burnish.models.estimate import count_parameters, estimate_memory
from burnish.models.settings import AdapterSettings

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "head_dim": 16,
}
TOKENS = 160
FAMILIES: dict[str, tuple[type[Any], type[Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}


def build(family: str, **changes: Any) -> Any:
    config, kind = FAMILIES[family]
    return kind(config(**{**SHAPE, **changes})).train()


def saved_bytes(model: PreTrainedModel) -> int:
    """Bytes of all storages that one forward pass of the decoder keeps for its backward pass, weights left out."""
    kept: dict[int, tuple[int, torch.Tensor]] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None]
    if model.config._attn_implementation == "eager":
        mask = torch.zeros(1, 1, TOKENS, TOKENS).masked_fill(~mask, -1e9)
    decoder: Any = getattr(model, model.base_model_prefix)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        decoder(input_ids=torch.arange(TOKENS)[None], attention_mask=mask, use_cache=False)
    return sum(size for size, _ in kept.values())


def adamw_bytes(optimizer: torch.optim.Optimizer) -> int:
    states = optimizer.state.values()
    return sum(state[key].nbytes for state in states for key in ("exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("with_adapter", [False, True])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_weights_gradients_and_optimizer_are_exact(family: str, with_adapter: bool) -> None:
    model = build(family, tie_word_embeddings=family == "qwen2")
    if with_adapter:
        model = add_adapter(model, AdapterSettings(lora_target_modules=["all-linear"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.arange(8)[None]).logits.sum().backward()
    optimizer.step()
    estimate = estimate_memory(model, tokens=TOKENS)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    gradients = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
    assert (estimate.weights, estimate.gradients) == (weights, gradients)
    assert estimate.optimizer == adamw_bytes(optimizer)


@pytest.mark.parametrize(
    ("family", "attention"),
    [
        *((family, attention) for family in ("qwen2", "llama", "qwen3") for attention in ("sdpa", "eager")),
        ("gemma2", "eager"),
    ],
)
def test_activations_are_within_a_tenth_of_what_is_saved(family: str, attention: str) -> None:
    model = build(family, attn_implementation=attention)
    assert estimate_memory(model, tokens=TOKENS).activations == pytest.approx(saved_bytes(model), rel=0.1)


def test_activations_under_autocast_are_within_a_quarter() -> None:
    model = build("qwen2")
    with torch.autocast("cpu", torch.bfloat16):
        measured = saved_bytes(model)
    copies = sum(parameter.numel() * 2 for layer in model.model.layers for parameter in layer.parameters())
    estimate = estimate_memory(model, tokens=TOKENS, compute_dtype=torch.bfloat16)
    assert estimate.activations + copies == pytest.approx(measured, rel=0.25)
    assert estimate.copies > 0
    assert estimate.weights == estimate_memory(model, tokens=TOKENS).weights


def test_a_reference_costs_its_weights_in_its_dtype() -> None:
    model = build("llama")
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert estimate_memory(model, tokens=8).reference == 0
    assert estimate_memory(model, tokens=8, has_frozen_reference=True).reference == weights
    half = estimate_memory(model, tokens=8, has_frozen_reference=True, reference_dtype=torch.bfloat16)
    assert half.reference == weights // 2


def test_shorter_rows_and_checkpointing_take_less() -> None:
    model = build("llama", num_hidden_layers=6)
    whole = estimate_memory(model, tokens=TOKENS).activations
    assert estimate_memory(model, tokens=TOKENS, row_tokens=20).activations < whole
    assert estimate_memory(model, tokens=TOKENS, holds_activations=False).activations == whole // 6
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert estimate_memory(model, tokens=TOKENS).activations < whole / 3


def test_the_parts_add_up_and_those_that_are_nothing_are_left_out() -> None:
    parts = estimate_memory(build("llama"), tokens=TOKENS).as_dict()
    assert parts.pop("total") == sum(parts.values())
    assert "reference" not in parts


def test_a_big_vocabulary_costs_one_block_of_logits() -> None:
    with torch.device("meta"):
        model = build("llama", vocab_size=1_000_000, hidden_size=8, head_dim=2)
    assert estimate_memory(model, tokens=100_000).logits <= 256 * 2**20


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_once(tied: bool) -> None:
    model = build("llama", tie_word_embeddings=tied)
    counts = count_parameters(model)
    assert counts.total == counts.trainable == sum(parameter.numel() for parameter in model.parameters())
    assert counts.embedding == counts.head == 300 * 64
    nn.Module.requires_grad_(model.model, False)
    assert count_parameters(model).trainable == (0 if tied else 300 * 64)


def test_an_adapters_parameters_are_the_trainable_ones() -> None:
    counts = count_parameters(add_adapter(build("llama"), AdapterSettings(lora_r=2, lora_target_modules=["q_proj"])))
    assert counts.trainable == 4 * 2 * (64 + 64)
    assert counts.embedding == 300 * 64
