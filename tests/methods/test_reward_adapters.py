"""Reward models with an adapter: adapter and scalar head are trained, saved, read again, scored with and merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from burnish import RewardConfig, RewardTrainer
from jobs import POLICY, job, stage_job, write_pairs
from runs import read_metrics, run_burnish

LORA = ["--use_peft", "--lora_r", 4, "--lora_target_modules", "all-linear"]


def _reward_job(data: Path, output: Path, *words: Any) -> list[Any]:
    return stage_job("reward", data, output, "--learning_rate", 1e-2, *words)


def _scored(model: Path, data: Path, out: Path) -> list[float]:
    run_burnish("score", model, data, out)
    return [reward for line in out.read_text().splitlines() for reward in json.loads(line)["rewards"]]


def _pooled(model: Any, data: Path) -> list[float]:
    """What transformers gives, one sequence at a time."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    ids = [row["prompt_ids"] + row[name] for row in rows for name in ("chosen_ids", "rejected_ids")]
    with torch.no_grad():
        return [float(model.eval()(torch.tensor([each])).logits) for each in ids]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward-adapter")
    data = write_pairs(folder / "pairs.jsonl", count=16)
    words = ["--max_steps", 12, "--save_strategy", "steps", "--save_steps", 6]
    run_burnish(*_reward_job(data, folder / "run", *LORA, *words))
    return folder


def test_adapter_and_head_learn_and_the_base_stays(trained: Path) -> None:
    records = [record for record in read_metrics(trained / "run") if record["kind"] == "train"]
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    saved = load_file(trained / "run" / "model" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in saved} == {"lora_A", "lora_B", "score"}
    assert not (trained / "run" / "model" / "model.safetensors").exists()
    assert "AutoPeftModelForSequenceClassification" in (trained / "run" / "model" / "README.md").read_text()


def test_score_gives_what_peft_and_transformers_give(trained: Path, tmp_path: Path) -> None:
    data, folder = trained / "pairs.jsonl", trained / "run" / "model"
    rewards = _scored(folder, data, tmp_path / "scored.jsonl")
    auto = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    assert rewards == pytest.approx(_pooled(auto, data), abs=1e-5)
    base = AutoModelForSequenceClassification.from_pretrained(POLICY, num_labels=1)
    assert rewards == pytest.approx(_pooled(PeftModel.from_pretrained(base, folder), data), abs=1e-5)


def test_merging_gives_an_ordinary_reward_model(trained: Path, tmp_path: Path) -> None:
    run_burnish("merge", trained / "run", tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    rewards = _scored(trained / "run" / "model", trained / "pairs.jsonl", tmp_path / "one.jsonl")
    assert rewards == pytest.approx(_pooled(model, trained / "pairs.jsonl"), abs=1e-4)
    merged = _scored(tmp_path / "merged", trained / "pairs.jsonl", tmp_path / "two.jsonl")
    assert rewards == pytest.approx(merged, abs=1e-4)


def test_training_goes_on_from_an_adapter_with_its_head(trained: Path, tmp_path: Path) -> None:
    data = trained / "pairs.jsonl"
    words = ["--model_name_or_path", trained / "run" / "model", "--learning_rate", 0, "--max_steps", 1]
    run_burnish(*_reward_job(data, tmp_path / "on", *words))
    rewards = _scored(trained / "run" / "model", data, tmp_path / "scored.jsonl")
    assert rewards == pytest.approx(_scored(tmp_path / "on" / "model", data, tmp_path / "on.jsonl"), abs=1e-6)


def test_a_checkpoint_is_exported_as_the_run_would_have_been(trained: Path, tmp_path: Path) -> None:
    run_burnish("export", trained / "run", tmp_path / "exported", "--step", 12)
    one, two = (
        load_file(folder / "adapter_model.safetensors") for folder in (trained / "run" / "model", tmp_path / "exported")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("task", [None, "CAUSAL_LM", "SEQ_CLS"])
def test_a_configuration_of_peft_trains_a_reward_model_too(task: str | None, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    given = LoraConfig(r=2, target_modules=["q_proj"], task_type=task)
    config = RewardConfig(dataset_name=str(data), output_dir=str(tmp_path / "run"), max_steps=1, save_strategy="no")
    trainer = RewardTrainer(str(POLICY), args=config, peft_config=given)
    trainer.train_and_export()
    trainer.close()
    assert given.modules_to_save is None
    saved = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert any(name.endswith("score.weight") for name in saved)


def test_adapters_of_the_other_kind_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = trained / "pairs.jsonl"
    run_burnish(*job(data, tmp_path / "language", *LORA, "--max_steps", 1))
    words = ["--model_name_or_path", tmp_path / "language" / "model"]
    run_burnish(*_reward_job(data, tmp_path / "reward", *words), expect=2)
    assert "write it into its base first (burnish merge)" in capsys.readouterr().err
    run_burnish(*job(data, tmp_path / "dpo", "--model_name_or_path", trained / "run" / "model"), expect=2)
    assert "an adapter for SEQ_CLS can't train a language model" in capsys.readouterr().err
