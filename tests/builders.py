"""Tiny models and groups, made from seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from burnish.data.groups import PromptGroup

VOCABULARY = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "llama": LlamaConfig(**SIZES),
    "mistral-window": MistralConfig(**SIZES, sliding_window=5),
    "gemma2": Gemma2Config(
        **SIZES, head_dim=8, sliding_window=6, attn_logit_softcapping=4.0, final_logit_softcapping=3.0
    ),
    "granite": GraniteConfig(**SIZES, logits_scaling=3.0),
    "cohere": CohereConfig(**SIZES, logit_scale=0.25),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=256),
}


def build_model(name: str, *, seed: int = 0, attention: str | None = None) -> PreTrainedModel:
    """A random model of an architecture with visible weights: large enough that a wrong mask shows."""
    config = CONFIGS[name]
    if attention is None:
        attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def float32_accelerator() -> Accelerator:
    """accelerate without mixed precision: its state is the process's, and an earlier run's may be bfloat16."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True)


def build_group(
    generator: np.random.Generator, *, prompt: int, completions: tuple[int, ...], masked: int = 0, **columns: Any
) -> PromptGroup:
    """A group of random ids with the given lengths; the first `masked` tokens of each completion do not count."""
    ids = lambda length: generator.integers(3, VOCABULARY, length).astype(np.int32)  # noqa: E731
    return PromptGroup(
        prompt_ids=ids(prompt),
        completion_ids=tuple(ids(length) for length in completions),
        completion_mask=tuple(np.arange(length) >= masked for length in completions),
        **columns,
    )


def build_groups(seed: int, count: int = 6, k: int = 2, **columns: Any) -> list[PromptGroup]:
    """Groups of uneven lengths, with the same columns."""
    generator = np.random.default_rng(seed)
    return [
        build_group(
            generator,
            prompt=int(generator.integers(2, 14)),
            completions=tuple(int(n) for n in generator.integers(1, 12, k)),
            **columns,
        )
        for _ in range(count)
    ]


def gradients(model: torch.nn.Module) -> torch.Tensor:
    """All gradients in one vector; the model's gradients are cleared."""
    vector = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return vector


def relative_difference(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((value - expected).norm() / expected.norm()).item()
