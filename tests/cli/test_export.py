"""`burnish export RUN --step N OUT` writes the model of one verified checkpoint, and nothing of a damaged one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs import POLICY, job, stage_job, write_pairs
from runs import run_burnish

SAVES = ("--max_steps", 3, "--save_strategy", "steps", "--save_steps", 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all weights and one of an adapter, three checkpoints each."""
    folder = tmp_path_factory.mktemp("export")
    data = write_pairs(folder / "pairs.jsonl")
    run_burnish(*job(data, folder / "full", *SAVES))
    run_burnish(*job(data, folder / "lora", *SAVES, "--use_peft", "--lora_r", 4))
    return folder


def export(run: Path, out: Path, *words: Any, expect: int = 0) -> None:
    run_burnish("export", run, *words, out, expect=expect)


def test_the_last_checkpoint_gives_the_final_model_bit_for_bit(runs: Path, tmp_path: Path) -> None:
    export(runs / "full", tmp_path / "out")
    one, two = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", runs / "full" / "model"))
    assert [name for name in two if not torch.equal(one[name], two[name])] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in (runs / "full" / "model").iterdir()
    )


def test_an_earlier_step_has_its_own_weights_and_loads_as_any_model(runs: Path, tmp_path: Path) -> None:
    export(runs / "full", tmp_path / "out", "--step", 1)
    saved = load_file(runs / "full" / "checkpoints" / "step-1" / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert [name for name in saved if not torch.equal(saved[name], loaded[name])] == []
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "step 1" in card
    assert "rewards/margins" in card


def test_an_adapter_is_exported_alone(runs: Path, tmp_path: Path) -> None:
    export(runs / "lora", tmp_path / "out", "--step", 3)
    name = "adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (runs / "lora" / "model" / name).read_bytes()
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_reward_model_keeps_its_head(tmp_path: Path) -> None:
    run_burnish(*stage_job("reward", write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", *SAVES))
    export(tmp_path / "run", tmp_path / "out", "--step", 3)
    one, two = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", tmp_path / "run" / "model"))
    assert torch.equal(one["score.weight"], two["score.weight"])


def test_a_damaged_checkpoint_is_named_and_nothing_is_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "full" / "checkpoints" / "step-2" / "optimizer.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    export(runs / "full", tmp_path / "out", "--step", 2, expect=3)
    path.write_bytes(whole)
    assert "optimizer.safetensors was changed or damaged" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_not_exported_onto_another_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for path in POLICY.iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    words = ("--model_name_or_path", base, "--use_peft", "--lora_r", 4)
    run_burnish(*job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", *SAVES, *words))
    weights = load_file(base / "model.safetensors")
    from safetensors.torch import save_file

    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, base / "model.safetensors", {"format": "pt"})
    export(tmp_path / "run", tmp_path / "out", expect=3)
    assert "has changed since the run began" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "out"], "there is no run nowhere"),
        (["{full}", "--step", "7", "out"], "no checkpoint of step 7; there are: 1, 2, 3"),
        (["{full}", "{full}"], "exists already"),
        (["{empty}", "out"], "holds no checkpoint"),
    ],
)
def test_what_cannot_be_exported_is_named(
    words: list[str],
    says: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    run_burnish("export", *(word.format(full=runs / "full", empty="empty") for word in words), expect=2)
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
