"""Every stage on real weights and real rows: two steps each. Budget: five minutes in all on two cores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from runs import read_metrics, run_burnish

pytestmark = pytest.mark.slow


def _run(model: Path, data: Path, output: Path, *words: Any) -> list[dict[str, Any]]:
    run_burnish(
        "dpo",
        *("--model_name_or_path", model, "--dataset_name", data, "--output_dir", output),
        *("--global_batch_size", 2, "--max_steps", 2, "--logging_steps", 1, "--num_samples", 1),
        *("--sample_max_new_tokens", 8, "--max_length", 512, "--save_strategy", "no", "--max_train_samples", 16),
        *("--learning_rate", 1e-5, *words),
    )
    return read_metrics(output)


def test_smollm2_learns_from_gsm8k_pairs_in_full(smollm2: Path, shared_dir: Path, tmp_path: Path) -> None:
    held_out = shared_dir / "data" / "gsm8k" / "pairs-test.jsonl"
    words = ["--eval_dataset_name", held_out, "--max_eval_samples", 2, "--eval_steps", 2]
    records = _run(smollm2, shared_dir / "data" / "gsm8k" / "pairs-train.jsonl", tmp_path / "run", *words)
    assert [record["kind"] for record in records] == ["train", "train", "eval", "summary"]
    assert records[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert records[0]["rewards/chosen"] == pytest.approx(0, abs=1e-4)
    assert records[0]["num_computed_tokens"] < 0.9 * records[0]["num_tokens"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").num_parameters() > 130e6


def test_smollm2_learns_from_chinese_pairs_with_an_adapter(smollm2: Path, shared_dir: Path, tmp_path: Path) -> None:
    data = shared_dir / "data" / "llamafactory" / "dpo_zh_demo.json"
    records = _run(smollm2, data, tmp_path / "run", "--use_peft", "--lora_r", 8)
    assert [record["kind"] for record in records] == ["train", "train", "summary"]
    assert records[0]["rewards/margins"] == 0
    assert records[1]["rewards/margins"] != 0
    base = AutoModelForCausalLM.from_pretrained(smollm2)
    assert PeftModel.from_pretrained(base, tmp_path / "run" / "model").peft_config


def _stage(command: str, model: Path, data: Path, output: Path, *words: Any) -> list[dict[str, Any]]:
    """Two steps of two rows on what other stages than DPO read."""
    run_burnish(
        command,
        *("--model_name_or_path", model, "--dataset_name", data, "--output_dir", output, "--max_train_samples", 4),
        *("--global_batch_size", 2, "--max_steps", 2, "--logging_steps", 1, "--num_samples", 0, "--max_length", 384),
        *("--learning_rate", 1e-5, "--save_strategy", "no", *words),
    )
    return read_metrics(output)


@pytest.fixture(scope="module")
def tuned(smollm2: Path, shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of supervised tuning on gsm8k, which the other stages begin from."""
    run = tmp_path_factory.mktemp("sft") / "run"
    _stage("sft", smollm2, shared_dir / "data" / "gsm8k" / "train.jsonl.gz", run, "--packing")
    return run


def test_supervised_tuning_begins_where_a_model_that_knows_english_does(tuned: Path) -> None:
    first, second, summary = read_metrics(tuned)
    assert summary["kind"] == "summary"
    for record in (first, second):
        assert 0.5 < record["loss"] < 2.5  # a model that knows nothing: ln 49152 = 10.8
        assert record["mean_token_accuracy"] > 0.5


def test_dpo_goes_on_from_the_tuned_model(tuned: Path, shared_dir: Path, tmp_path: Path) -> None:
    data = shared_dir / "data" / "gsm8k" / "pairs-train.jsonl"
    first, second, _ = _stage("dpo", tuned / "model", data, tmp_path / "run")
    assert first["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert second["rewards/margins"] != 0


def test_a_reward_model_of_real_pairs_loads_and_scores(tuned: Path, shared_dir: Path, tmp_path: Path) -> None:
    data = shared_dir / "data" / "llmbar" / "Adversarial_Neighbor.json"
    first, _, _ = _stage("reward", tuned / "model", data, tmp_path / "run")
    assert {"accuracy", "margin", "mean_reward"} <= first.keys()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert model.config.num_labels == 1
    words = ["--max_train_samples", 3, "--max_length", 384]
    run_burnish("score", tmp_path / "run" / "model", data, tmp_path / "scored.jsonl", *words)
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert len(scored) == 3
    assert all(row["margin"] == row["rewards"][0] - row["rewards"][1] != 0 for row in scored)
