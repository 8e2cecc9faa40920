"""Small models and the steps in which their memory is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from builders import build_group
from burnish.batching.layout import MicroBatch, lay_out
from burnish.models.adapters import add_adapter
from burnish.models.settings import AdapterSettings
from burnish.scoring.scorer import unwrap_adapter

SHAPE: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 4000, "tie_word_embeddings": False,
}  # fmt: skip
ROW, ROWS = 128, 2
FAMILIES: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def build_model(family: str, *, adapter: list[str] | None, checkpointing: bool, **changes: Any) -> Any:
    torch.manual_seed(0)
    config, kind = FAMILIES[family]
    model: Any = kind(config(**{**SHAPE, **changes})).train()
    if adapter is not None:
        model = add_adapter(model, AdapterSettings(lora_target_modules=adapter))
    if checkpointing:
        plain: Any = unwrap_adapter(model)
        plain.activation_checkpointing_enable({"use_reentrant": False})
    return model


def build_batches() -> list[MicroBatch]:
    generator = np.random.default_rng(0)
    completions = (ROW // 4, ROW // 4)
    groups = [[build_group(generator, prompt=ROW // 2, completions=completions) for _ in range(ROWS)] for _ in range(2)]
    return [lay_out(rows, shared=True, pad_id=0) for rows in groups]


def step_shape(dtype: torch.dtype) -> dict[str, Any]:
    return {"tokens": ROW * ROWS, "row_tokens": ROW, "counted_tokens": ROWS * ROW // 2, "compute_dtype": dtype}
