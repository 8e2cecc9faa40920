from __future__ import annotations

import errno
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.data.settings import DataSettings
from burnish.errors import ConfigError, IntegrityError
from burnish.models.adapters import add_adapter
from burnish.models.export import export_model
from burnish.models.load import load_policy
from burnish.models.settings import AdapterSettings, ModelSettings
from burnish.models.tokenizer import load_tokenizer

Make = Callable[..., Any]
TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"


@pytest.fixture
def golden_tokenizer(golden: Path) -> Any:
    tokenizer = load_tokenizer(ModelSettings(model_name_or_path=str(golden)), DataSettings())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".tmp" in path.name]


def test_an_export_loads_with_transformers_template_included(
    golden: Path, golden_tokenizer: Any, settings_for: Make, logits_of: Make, tmp_path: Path
) -> None:
    model = load_policy(settings_for(golden))
    out = tmp_path / "runs" / "one" / "model"
    export_model(model, golden_tokenizer, out, card="# mine\n")
    again = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits_of(again), logits_of(model))
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE
    assert (out / "README.md").read_text() == "# mine\n"
    assert (out / "model.safetensors").is_file()
    assert leftovers(out.parent) == []


def test_the_float32_masters_are_kept(tiny_llama: Make, saved: Make, settings_for: Make, tmp_path: Path) -> None:
    model = load_policy(settings_for(saved(tiny_llama().bfloat16())))
    with torch.no_grad():
        model.lm_head.weight.add_(1e-6)
    export_model(model, None, tmp_path / "out", card=None)
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"], model.lm_head.weight)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_an_adapter_exports_alone_and_loads_with_peft(
    golden: Path, golden_tokenizer: Any, settings_for: Make, logits_of: Make, tmp_path: Path
) -> None:
    model = add_adapter(load_policy(settings_for(golden)), AdapterSettings(lora_target_modules=["all-linear"]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
    export_model(model, golden_tokenizer, tmp_path / "out", card="# ours\n")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(golden)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert (tmp_path / "out" / "README.md").read_text() == "# ours\n"
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft's own, of transformers
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(golden), str(tmp_path / "out"))
    assert torch.equal(logits_of(theirs), logits_of(model))


def test_an_adapter_on_a_hub_model_names_the_hub_id(tiny_llama: Make, tmp_path: Path) -> None:
    model = tiny_llama()
    model.name_or_path = model.config._name_or_path = "owner/model"
    export_model(add_adapter(model, AdapterSettings()), None, tmp_path / "out", card=None)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/model"
    assert not (tmp_path / "out" / "README.md").exists()


def test_other_files_of_a_folder_stay_and_stale_weights_go(
    golden: Path, golden_tokenizer: Any, settings_for: Make, logits_of: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for stale in ("adapter_config.json", "adapter_model.safetensors", "model-00001-of-00002.safetensors"):
        (out / stale).write_text("{}")
    (out / "model.safetensors.index.json").write_text("{}")
    (out / "run.yaml").write_text("seed: 1\n")
    model = load_policy(settings_for(golden))
    export_model(model, golden_tokenizer, out, card=None)
    export_model(model, golden_tokenizer, out, card=None)
    assert (out / "run.yaml").read_text() == "seed: 1\n"
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "run.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert torch.equal(logits_of(load_policy(settings_for(out))), logits_of(model))


def test_a_generation_config_that_transformers_would_refuse_is_kept(
    golden: Path, settings_for: Make, tmp_path: Path
) -> None:
    path = golden / "generation_config.json"
    path.write_text(json.dumps({"do_sample": False, "temperature": 0.3, "eos_token_id": 2}))
    export_model(load_policy(settings_for(golden)), None, tmp_path / "out", card=None)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["temperature"] == 0.3
    assert written["eos_token_id"] == 2


def test_no_path_of_this_machine_is_in_an_exported_model(golden: Path, settings_for: Make, tmp_path: Path) -> None:
    export_model(load_policy(settings_for(golden)), None, tmp_path / "out", card=None)
    for file in (tmp_path / "out").glob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_a_failed_write_leaves_nothing_and_says_where(
    golden: Path, settings_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_policy(settings_for(golden))

    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(IntegrityError, match=r"could not be written to .*out: No space left"):
        export_model(model, None, tmp_path / "out", card="# card")
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


def test_a_failed_write_leaves_an_earlier_export_whole(
    golden: Path, settings_for: Make, logits_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_policy(settings_for(golden))
    export_model(model, None, tmp_path / "out", card=None)
    before = logits_of(model)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(IntegrityError):
            export_model(model, None, tmp_path / "out", card=None)
    assert torch.equal(logits_of(load_policy(settings_for(tmp_path / "out"))), before)
    assert leftovers(tmp_path) == []


def test_a_file_in_the_way_is_told(tiny_llama: Make, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        export_model(tiny_llama(), None, tmp_path / "out", card=None)


def test_gathered_weights_are_written_instead_of_the_models_own(tiny_llama: Make, tmp_path: Path) -> None:
    model = tiny_llama()
    gathered = {name: torch.full_like(tensor, 2.0) for name, tensor in model.state_dict().items()}
    export_model(model, None, tmp_path / "out", card=None, state_dict=gathered)
    assert all(bool((tensor == 2).all()) for tensor in load_file(tmp_path / "out" / "model.safetensors").values())


def test_exporting_prints_nothing(
    golden: Path, golden_tokenizer: Any, settings_for: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_policy(settings_for(golden))
    export_model(model, golden_tokenizer, tmp_path / "out", card=None)
    export_model(add_adapter(model, AdapterSettings()), golden_tokenizer, tmp_path / "adapter", card=None)
    assert capfd.readouterr() == ("", "")
