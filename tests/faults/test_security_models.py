"""A model, adapter or checkpoint from a stranger: nothing in it runs, nothing outside its folder is read."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from burnish.errors import ModelError
from burnish.models.load import load_causal_lm, load_policy
from burnish.models.settings import ModelSettings
from burnish.models.tokenizer import read_tokenizer
from jobs import POLICY, job, write_pairs
from runs import run_burnish

PICKLES = (
    "pytorch_model.bin",
    "adapter_model.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "rng_state.pth",
    "rng_state_0.pth",
    "random_states_0.pkl",
    "scaler.pt",
    "training_args.bin",
    "trainer_state.pt",
    "value_head.bin",
)
MODULE = "import pathlib\npathlib.Path({canary!r}).touch()\nclass Evil:\n    pass\n"


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.path),)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that only a stranger's code could make."""
    return tmp_path / "canary"


def _plant(folder: Path, canary: Path) -> None:
    """Put everything that could run into a folder: pickles under every known name, and Python modules."""
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(_Touch(canary)))
    torch.save({"x": _Touch(canary)}, folder / "optimizer.pt")
    code = MODULE.format(canary=str(canary))
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(code)
    (folder / "custom_generate").mkdir(exist_ok=True)
    (folder / "custom_generate" / "generate.py").write_text(code)


def _change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def evil_model(tmp_path: Path, canary: Path) -> Path:
    """A whole model with pickles and modules beside its weights."""
    folder = tmp_path / "evil-model"
    shutil.copytree(POLICY, folder)
    _plant(folder, canary)
    return folder


def test_the_canaries_would_sing(evil_model: Path, canary: Path) -> None:
    """The test's own test: opened as pickles, and imported, they do make the file."""
    for name in PICKLES:
        if name != "optimizer.pt":
            pickle.loads((evil_model / name).read_bytes())
            assert canary.exists(), name
            canary.unlink()
    torch.load(evil_model / "optimizer.pt", weights_only=False)
    assert canary.exists()
    canary.unlink()
    exec((evil_model / "modeling_evil.py").read_text(), {})
    assert canary.exists()


def test_a_run_on_a_model_full_of_pickles_opens_none(evil_model: Path, canary: Path, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = job(data, tmp_path / "run", "--model_name_or_path", evil_model, "--max_steps", 1, "--num_samples", 1)
    run_burnish(*words, "--ref_model_name_or_path", evil_model)
    assert not canary.exists()


AUTO_MAP = {
    "AutoConfig": "configuration_evil.Evil",
    "AutoModelForCausalLM": "modeling_evil.Evil",
    "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "auto_map": {"auto_map": AUTO_MAP},
    "auto_map of an unknown type": {"auto_map": AUTO_MAP, "model_type": "evil"},
    "auto_map that asks for trust itself": {"auto_map": AUTO_MAP, "model_type": "evil", "trust_remote_code": True},
    "auto_map on a hub": {"auto_map": {"AutoConfig": "evil/repo--configuration_evil.Evil"}, "model_type": "evil"},
    "attention kernel": {"_attn_implementation_internal": "evil/kernel", "attn_implementation": "evil/kernel"},
    "attention kernel by its other name": {"_attn_implementation": "evil/kernel"},
    "experts kernel": {"_experts_implementation_internal": "evil/kernel", "experts_implementation": "evil/kernel"},
    "custom generate": {"custom_generate": "evil/repo"},
    "weights elsewhere": {"transformers_weights": "../elsewhere.safetensors"},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_can_make_nothing_run_and_nothing_be_fetched(
    case: str, evil_model: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change_json(evil_model / "config.json", **CONFIGS[case])
    _forbid_connections(monkeypatch)
    try:
        model = load_policy(ModelSettings(model_name_or_path=str(evil_model)))
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017 (refused is as right as ignored)
    else:
        assert model.config._attn_implementation == "sdpa"
    assert not canary.exists()


def _forbid_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*address: Any) -> None:
        raise AssertionError(f"a connection to {address} was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_code_runs_where_the_flag_trusts_it(evil_model: Path, canary: Path) -> None:
    """Without this, the tests above could pass for any reason."""
    _change_json(evil_model / "config.json", auto_map=AUTO_MAP, model_type="evil")
    with pytest.raises(ModelError):
        load_policy(ModelSettings(model_name_or_path=str(evil_model), trust_remote_code=True))
    assert canary.exists()


def test_a_tokenizers_config_can_run_nothing(tmp_path: Path, canary: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(Path(__file__).parents[1] / "golden" / "trl_ids" / "chatml", folder)
    _plant(folder, canary)
    _change_json(folder / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="Evil", trust_remote_code=True)
    with pytest.raises(ModelError, match="--trust_remote_code if you trust it"):
        read_tokenizer(folder)
    assert not canary.exists()


def test_settings_files_can_not_trust_code(
    evil_model: Path, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _change_json(evil_model / "config.json", auto_map=AUTO_MAP, model_type="evil")
    data = write_pairs(tmp_path / "pairs.jsonl")
    for text in ("trust_remote_code: true", "model_init_kwargs: {trust_remote_code: true}"):
        (tmp_path / "run.yaml").write_text(text + "\n")
        words = job(data, tmp_path / "run", "--model_name_or_path", evil_model, "--config", tmp_path / "run.yaml")
        run_burnish(*words, expect=2)
        assert "give the flag --trust_remote_code" in capsys.readouterr().err
        assert not canary.exists()
    run_burnish(*words, "--trust_remote_code", expect=2)
    assert canary.exists()


INDICES = ["../elsewhere.safetensors", "/etc/hostname", "sub/../../elsewhere.safetensors", "sub/model.safetensors"]


@pytest.mark.parametrize("name", INDICES)
def test_an_index_of_weights_stays_in_its_folder(name: str, evil_model: Path, tmp_path: Path) -> None:
    tensors = load_file(evil_model / "model.safetensors")
    (evil_model / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (evil_model / "sub").mkdir()
    save_file(tensors, evil_model / "sub" / "model.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
    (evil_model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="names weights outside its folder"):
        load_policy(ModelSettings(model_name_or_path=str(evil_model)))


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "merges_file", "spm_file", "added_tokens_file"])
def test_a_tokenizers_files_stay_in_its_folder(key: str, tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(Path(__file__).parents[1] / "golden" / "trl_ids" / "chatml", folder)
    (tmp_path / ".env").write_text("SECRET=hunter2")
    _change_json(folder / "tokenizer_config.json", **{key: "../.env"})
    with pytest.raises(ModelError, match=r"names a file outside its folder .*\.\./\.env"):
        read_tokenizer(folder)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A small LoRA adapter on the tiny policy."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(POLICY)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    folder = tmp_path / "adapter"
    get_peft_model(model, config).save_pretrained(str(folder))
    _change_json(folder / "adapter_config.json", base_model_name_or_path=str(POLICY))
    return folder


ADAPTERS: dict[str, dict[str, Any]] = {
    "imports a module": {"megatron_config": {"hidden_size": 1}, "megatron_core": "evil_module"},
    "names other adapters": {"peft_type": "XLORA", "adapters": {"0": "../../evil"}, "hidden_size": 32},
    "compiles an extension": {"peft_type": "BOFT", "boft_block_size": 4},
    "maps to a class": {
        "task_type": None,
        "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil_module"},
    },
    "opens a pickled cache": {"init_lora_weights": "corda", "corda_config": {"cache_file": "pytorch_model.bin"}},
    "opens another pickled cache": {
        "init_lora_weights": "lora_ga",
        "lora_ga_config": {"cache_file": "adapter_model.bin"},
    },
    "is an unknown kind": {"peft_type": "EVIL"},
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapters_config_can_run_nothing(
    case: str, adapter: Path, canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(adapter, canary)
    (tmp_path / "evil_module.py").write_text(MODULE.format(canary=str(canary)))
    monkeypatch.syspath_prepend(str(tmp_path))
    _change_json(adapter / "adapter_config.json", **ADAPTERS[case])
    try:
        load_causal_lm(str(adapter), ModelSettings())
    except ModelError as error:
        assert len(str(error).splitlines()) <= 2  # noqa: PT017 (refused is as right as ignored)
    assert not canary.exists()


def test_pickled_adapter_weights_are_not_opened(adapter: Path, canary: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    _plant(adapter, canary)
    with pytest.raises(ModelError, match="pickles are not opened"):
        load_causal_lm(str(adapter), ModelSettings())
    assert not canary.exists()


def test_pickled_weights_are_refused_with_the_cure(evil_model: Path, canary: Path) -> None:
    (evil_model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="which can run code when opened"):
        load_policy(ModelSettings(model_name_or_path=str(evil_model)))
    assert not canary.exists()


def test_a_checkpoint_full_of_pickles_resumes_without_opening_one(tmp_path: Path, canary: Path) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--save_strategy", "steps", "--save_steps", 1)
    run_burnish(*words, "--max_steps", 2)
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        _plant(folder, canary)
    run_burnish(*words, "--max_steps", 2, "--resume_from_checkpoint", "auto")
    assert not canary.exists()


@pytest.mark.parametrize("path", ["../../../outside", "/etc/hostname", "sub/file", "..", ".hidden"])
def test_a_manifests_paths_stay_in_the_checkpoint(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from burnish.engine.manifest import MANIFEST_NAME, _digest

    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--save_strategy", "steps", "--save_steps", 1)
    run_burnish(*words, "--max_steps", 1)
    manifest = tmp_path / "run" / "checkpoints" / "step-1" / MANIFEST_NAME
    body = json.loads(manifest.read_text())
    del body["manifest_sha256"]
    body["files"][0]["path"] = path  # by somebody who knows how to write a digest
    manifest.write_text(json.dumps(body | {"manifest_sha256": _digest(body)}))
    run_burnish(*words, "--max_steps", 1, "--resume_from_checkpoint", "auto", expect=3)
    assert "would leave the folder" in capsys.readouterr().err


TEMPLATES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.mknod(%r) }}",
    "attribute filter": "{{ messages|attr('__class__') }}",
    "format string": "{{ '{0.__class__}'.format(messages) }}",
    "lists can't be changed": "{{ messages.append(1) }}",
    "no imports": "{% import 'os' as os %}",
    "no files": "{% include '/etc/hostname' %}",
}


@pytest.mark.parametrize("case", TEMPLATES)
@pytest.mark.parametrize("where", ["tokenizer", "file"])
def test_a_chat_template_is_kept_in_its_sandbox(
    case: str, where: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = TEMPLATES[case]
    template = source % str(canary) if "%r" in source else source
    folder = tmp_path / "model"
    shutil.copytree(Path(__file__).parents[1] / "golden" / "trl_ids" / "chatml", folder)
    words = []
    if where == "tokenizer":
        (folder / "chat_template.jinja").write_text(template)
    else:
        (tmp_path / "evil.jinja").write_text(template)
        words = ["--chat_template_path", tmp_path / "evil.jinja"]
    turn = lambda role, content: [{"role": role, "content": content}]  # noqa: E731
    row = {"prompt": turn("user", "a"), "chosen": turn("assistant", "b"), "rejected": turn("assistant", "c")}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    run_burnish("check", tmp_path / "rows.jsonl", "--model", folder, *words, expect=2)
    captured = capsys.readouterr()
    assert not canary.exists()
    assert "0 preference pairs used" in " ".join(captured.out.split())
    assert "<class" not in captured.out
    assert not captured.err
