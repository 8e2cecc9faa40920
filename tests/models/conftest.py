"""Small random models and the golden policy, for the tests of this room."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from burnish.models.settings import ModelSettings

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen2" / "policy"
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def tiny_llama() -> Callable[..., LlamaForCausalLM]:
    """Makes a random Llama with a head of its own."""

    def make(**changes: Any) -> LlamaForCausalLM:
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**{**SHAPE, "tie_word_embeddings": False, **changes}))

    return make


@pytest.fixture
def tiny_qwen2() -> Callable[..., Qwen2ForCausalLM]:
    """Makes a random Qwen2 with a tied head."""

    def make(**changes: Any) -> Qwen2ForCausalLM:
        torch.manual_seed(1)
        return Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, "tie_word_embeddings": True, **changes}))

    return make


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A writable copy of the golden policy's folder."""
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[PreTrainedModel], Path]:
    """Writes a model, with the golden tokenizer, to a folder of its own."""

    def save(model: PreTrainedModel, name: str = "model") -> Path:
        folder = tmp_path / name
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(GOLDEN / file, folder)
        return folder

    return save


@pytest.fixture
def settings_for() -> Callable[..., ModelSettings]:
    """Settings that name a folder."""

    def make(folder: Path, **changes: Any) -> ModelSettings:
        return ModelSettings(model_name_or_path=str(folder), **changes)

    return make


@pytest.fixture
def logits_of() -> Callable[..., torch.Tensor]:
    """Runs a model in eval mode, without gradients, on fixed ids (those of the first three quarters of 96)."""

    def run(model: Any) -> torch.Tensor:
        ids = torch.randint(3, 72, (2, 9), generator=torch.Generator().manual_seed(5))
        was_training = model.training
        model.eval()
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        model.train(was_training)
        return logits

    return run
