from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file

from burnish.errors import ConfigError, ModelError
from burnish.models.adapters import POLICY, REFERENCE, adapter_config, add_adapter, keep_start, reference_weights
from burnish.models.export import export_model
from burnish.models.load import disable_dropout, load_policy
from burnish.models.merge import merge_weights
from burnish.models.settings import AdapterSettings

Make = Callable[..., Any]
LORA = AdapterSettings(use_peft=True, lora_r=4, lora_alpha=8, lora_target_modules=["all-linear"])


def move(model: torch.nn.Module, scale: float = 0.2) -> None:
    """A stand-in for training: every trainable weight goes somewhere else."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture
def trained_adapter(tmp_path: Path, tiny_llama: Make, saved: Make, settings_for: Make) -> Path:
    """A folder with an adapter that has moved, on a base saved beside it."""
    model = add_adapter(load_policy(settings_for(saved(tiny_llama(), "base"))), LORA)
    move(model)
    export_model(model, None, tmp_path / "adapter", card=None)
    return tmp_path / "adapter"


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_qwen2"])
@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"use_rslora": True}, {"lora_modules_to_save": ["norm"]}])
def test_switched_off_the_adapter_leaves_the_base_bit_for_bit(
    family: str, changes: dict[str, Any], logits_of: Make, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(family)()
    expected = logits_of(base)
    model = add_adapter(base, replace(LORA, **changes))
    move(model)
    assert not torch.equal(logits_of(model), expected)
    with reference_weights(model):
        assert torch.equal(logits_of(model), expected)
    assert not torch.equal(logits_of(model), expected)


def test_a_fresh_adapter_starts_as_the_base(tiny_llama: Make, logits_of: Make) -> None:
    base = tiny_llama()
    expected = logits_of(base)
    assert torch.equal(logits_of(add_adapter(base, LORA)), expected)


def test_only_the_adapter_is_trainable_and_float32(tiny_llama: Make) -> None:
    model = add_adapter(tiny_llama().bfloat16(), replace(LORA, lora_modules_to_save=["lm_head"]))
    names = trainable(model)
    assert names
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert not any("lm_head" in name and "lora_" in name for name in names)


@pytest.mark.parametrize("continued", [False, True])
def test_the_reference_leaves_trainability_as_it_was(continued: bool, tiny_llama: Make) -> None:
    model = add_adapter(tiny_llama(), LORA)
    if continued:
        keep_start(model)
    odd = next(p for n, p in model.named_parameters() if "lora_A" in n and POLICY in n)
    odd.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(RuntimeError), reference_weights(model):
        raise RuntimeError
    assert [p.requires_grad for p in model.parameters()] == before


def test_gradients_reach_the_policy_after_the_reference_ran(tiny_llama: Make) -> None:
    model = add_adapter(tiny_llama(), LORA)
    keep_start(model)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad(), reference_weights(model):
        model(input_ids=ids)
    model(input_ids=ids).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (f".{POLICY}." in name), name


def test_dropout_of_the_base_goes_and_lora_dropout_stays(tiny_llama: Make) -> None:
    model: Any = add_adapter(tiny_llama(attention_dropout=0.2), replace(LORA, lora_dropout=0.25))
    disable_dropout(model)
    assert model.get_base_model().model.layers[0].self_attn.attention_dropout == 0
    kept = [module.p for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)]
    assert kept
    assert set(kept) == {0.25}


def test_a_loaded_adapter_goes_on_from_where_it_stood(
    trained_adapter: Path, settings_for: Make, logits_of: Make
) -> None:
    model: Any = load_policy(settings_for(trained_adapter))
    start = logits_of(model)
    merged = logits_of(merge_weights(copy.deepcopy(model)))
    assert torch.allclose(start, merged, atol=1e-5)
    with reference_weights(model):
        assert torch.equal(logits_of(model), start)
    move(model)
    assert not torch.allclose(logits_of(model), start, atol=1e-2)
    with reference_weights(model):
        assert torch.equal(logits_of(model), start)
        assert torch.allclose(logits_of(model), merged, atol=1e-5)
    assert all(f".{POLICY}." in name for name in trainable(model))


def test_modules_to_save_have_their_start_as_reference_too(
    tmp_path: Path, tiny_llama: Make, saved: Make, settings_for: Make, logits_of: Make
) -> None:
    model = add_adapter(
        load_policy(settings_for(saved(tiny_llama(), "base"))), replace(LORA, lora_modules_to_save=["lm_head"])
    )
    move(model)
    export_model(model, None, tmp_path / "adapter", card=None)
    again: Any = load_policy(settings_for(tmp_path / "adapter"))
    start = logits_of(again)
    assert torch.equal(start, logits_of(model))
    move(again)
    with reference_weights(again):
        assert torch.equal(logits_of(again), start)


def test_a_continued_adapter_exports_alone(
    trained_adapter: Path, settings_for: Make, logits_of: Make, tmp_path: Path
) -> None:
    model = load_policy(settings_for(trained_adapter))
    move(model)
    export_model(model, None, tmp_path / "again", card=None)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert not any(REFERENCE in name for name in load_file(tmp_path / "again" / "adapter_model.safetensors"))
    assert torch.equal(logits_of(load_policy(settings_for(tmp_path / "again"))), logits_of(model))


def test_a_given_peft_model_keeps_its_start(tiny_llama: Make, logits_of: Make) -> None:
    model = add_adapter(tiny_llama(), LORA)
    move(model)
    start = logits_of(model)
    keep_start(model)
    move(model)
    with reference_weights(model):
        assert torch.equal(logits_of(model), start)
    with pytest.raises(ConfigError, match="default, reference"):
        keep_start(model)


def test_a_second_adapter_is_refused(tiny_llama: Make) -> None:
    with pytest.raises(ConfigError, match="burnish merge"):
        add_adapter(add_adapter(tiny_llama(), LORA), LORA)  # pyright: ignore[reportArgumentType]


def test_a_plain_model_has_no_reference_of_its_own(tiny_llama: Make) -> None:
    with pytest.raises(TypeError, match="adapter"), reference_weights(tiny_llama()):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lora_target_modules": ["q_proj", "query"]},
            r"--lora_target_modules: the model has no query; it has .*q_proj",
        ),
        ({"lora_target_modules": [".*attn.query$"]}, r"matches no layer; there are .*q_proj"),
        ({"lora_target_modules": ["*("]}, "no regular expression"),
        ({"lora_target_modules": ["all-linear", "q_proj"]}, "stands alone"),
        ({"lora_modules_to_save": ["score"]}, r"--lora_modules_to_save: the model has no score"),
        ({"lora_target_parameters": ["experts.gate"]}, r"--lora_target_parameters: the model has no experts\.gate"),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, r"output head.*--lora_modules_to_save"),
        ({"lora_r": 0}, "--lora_r 0"),
        ({"lora_alpha": 0}, "--lora_alpha 0"),
        ({"lora_dropout": 1.0}, r"--lora_dropout 1\.0"),
    ],
)
def test_wrong_settings_name_flag_and_cure(changes: dict[str, Any], message: str, tiny_llama: Make) -> None:
    with pytest.raises(ConfigError, match=message):
        add_adapter(tiny_llama(), replace(LORA, **changes))


def test_an_architecture_unknown_to_peft_says_what_to_give(tiny_llama: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    monkeypatch.setattr(type(model.config), "model_type", "novel")
    with pytest.raises(ConfigError, match="--lora_target_modules all-linear"):
        add_adapter(model, replace(LORA, lora_target_modules=None))


def test_patterns_and_names_choose_layers(tiny_llama: Make) -> None:
    by_pattern = add_adapter(tiny_llama(), replace(LORA, lora_target_modules=[r".*\.1\.self_attn\.(q|v)_proj"]))
    assert {name.split(".lora_")[0] for name in trainable(by_pattern)} == {
        f"base_model.model.model.layers.1.self_attn.{letter}_proj" for letter in "qv"
    }
    one = add_adapter(tiny_llama(), replace(LORA, lora_target_modules=["q_proj"]))
    assert len(trainable(one)) == 4


def test_settings_become_pefts_own() -> None:
    config = adapter_config(replace(LORA, lora_dropout=0.1, use_dora=True, use_rslora=True))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.1)
    assert config.use_dora
    assert config.use_rslora
    assert config.target_modules == "all-linear"
    assert config.task_type == TaskType.CAUSAL_LM


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LoraConfig(task_type="CAUSAL_LM", init_lora_weights="pissa"), "pissa moves the base"),
        (LoraConfig(task_type="CAUSAL_LM", bias="all"), "bias=all"),
        (LoraConfig(task_type="SEQ_CLS"), "SEQ_CLS"),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4), "virtual tokens"),
    ],
)
def test_adapters_without_a_reference_are_refused(config: Any, message: str, tiny_llama: Make) -> None:
    with pytest.raises(ConfigError, match=message):
        add_adapter(tiny_llama(), config)


def test_a_ready_config_is_taken_as_it_is(tiny_llama: Make) -> None:
    model: Any = add_adapter(tiny_llama(), LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["down_proj"]))
    assert model.peft_config[POLICY].r == 3
    assert all("down_proj" in name for name in trainable(model))


def test_an_adapter_without_weights_is_told(trained_adapter: Path, settings_for: Make) -> None:
    (trained_adapter / "adapter_model.safetensors").rename(trained_adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        load_policy(settings_for(trained_adapter))


def test_an_adapter_whose_base_is_gone_is_told(trained_adapter: Path, settings_for: Make) -> None:
    shutil.rmtree(trained_adapter.parent / "base")
    with pytest.raises(ModelError, match="set base_model_name_or_path"):
        load_policy(settings_for(trained_adapter))


def test_an_adapter_of_another_model_is_told(trained_adapter: Path, settings_for: Make, tiny_llama: Make) -> None:
    tiny_llama(num_hidden_layers=1).save_pretrained(trained_adapter.parent / "base")
    with pytest.raises(ModelError, match="does not fit"):
        load_policy(settings_for(trained_adapter))
    tiny_llama(hidden_size=64).save_pretrained(trained_adapter.parent / "base")
    with pytest.raises(ModelError, match="does not fit"):
        load_policy(settings_for(trained_adapter))


def test_a_missing_adapter_tensor_is_told(trained_adapter: Path, settings_for: Make) -> None:
    file = trained_adapter / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[min(weights)]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 tensors are missing"):
        load_policy(settings_for(trained_adapter))


def test_a_folder_whose_adapter_moves_the_base_is_refused(trained_adapter: Path, settings_for: Make) -> None:
    path = trained_adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bias": "all"}))
    with pytest.raises(ModelError, match="bias=all"):
        load_policy(settings_for(trained_adapter))


def test_peft_made_it_and_burnish_continues_it(
    tmp_path: Path, tiny_llama: Make, saved: Make, settings_for: Make
) -> None:
    base = load_policy(settings_for(saved(tiny_llama(), "base")))
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft's own, of transformers
        theirs = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    theirs.save_pretrained(str(tmp_path / "theirs"))
    assert load_policy(settings_for(tmp_path / "theirs")).peft_config[POLICY].inference_mode is False
