from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.cli.merge import run_merge
from burnish.data.settings import DataSettings
from burnish.errors import ConfigError, IntegrityError, ModelError
from burnish.models.adapters import add_adapter
from burnish.models.export import export_model
from burnish.models.load import load_policy
from burnish.models.merge import merge_adapter
from burnish.models.settings import AdapterSettings
from burnish.models.tokenizer import load_tokenizer

Make = Callable[..., Any]
LORA = AdapterSettings(use_peft=True, lora_r=4, lora_target_modules=["all-linear"])


@pytest.fixture
def make_run(tmp_path: Path, golden: Path, settings_for: Make) -> Make:
    """A run directory whose model/ is an adapter that has moved, and that model."""

    def make(settings: Any) -> tuple[Path, Any]:
        model = add_adapter(load_policy(settings_for(golden)), settings)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        tokenizer = load_tokenizer(settings_for(golden), DataSettings())
        export_model(model, tokenizer, tmp_path / "run" / "model", card=None)
        return tmp_path / "run", model

    return make


@pytest.mark.parametrize(
    "settings",
    [
        LORA,
        replace(LORA, use_dora=True),
        replace(LORA, use_rslora=True, lora_alpha=3),
        replace(LORA, lora_modules_to_save=["lm_head"]),
        replace(LORA, lora_modules_to_save=["embed_tokens"]),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["embed_tokens", "q_proj"]),
    ],
    ids=["lora", "dora", "rslora", "own head", "own embedding", "embedding"],
)
def test_the_merged_model_computes_what_base_and_adapter_do(
    settings: Any, make_run: Make, logits_of: Make, tmp_path: Path
) -> None:
    run, model = make_run(settings)
    expected = logits_of(model)
    assert merge_adapter(run, tmp_path / "out") == tmp_path / "out"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits_of(merged), expected, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token == "</s>"
    assert "base_model: golden" in (tmp_path / "out" / "README.md").read_text()


def test_head_and_embedding_stay_shared_where_nothing_told_them_apart(make_run: Make, tmp_path: Path) -> None:
    run, _ = make_run(LORA)
    merge_adapter(run / "model", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.config.tie_word_embeddings
    assert merged.lm_head.weight is merged.model.embed_tokens.weight


def test_the_command_says_where_the_model_is(
    make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = make_run(LORA)
    run_merge(run, tmp_path / "out")
    assert str(tmp_path / "out") in capsys.readouterr().out


def test_an_existing_folder_is_not_touched(make_run: Make, tmp_path: Path) -> None:
    run, _ = make_run(LORA)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        merge_adapter(run, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_no_adapter_is_told(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="whole model already"):
        merge_adapter(golden, tmp_path / "out")
    with pytest.raises(ModelError, match="no folder"):
        merge_adapter(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no adapter"):
        merge_adapter(tmp_path / "empty", tmp_path / "out")


def test_a_base_that_is_gone_is_told(make_run: Make, golden: Path, tmp_path: Path) -> None:
    run, _ = make_run(LORA)
    shutil.rmtree(golden)
    with pytest.raises(ModelError, match="base_model_name_or_path"):
        merge_adapter(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_merge_is_noticed_and_removed(make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = make_run(LORA)
    monkeypatch.setattr("burnish.models.merge.merge_weights", lambda model: model.unload())
    with pytest.raises(IntegrityError, match="does not compute"):
        merge_adapter(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
