"""With adapters the reference is the adapter switched off, or the start of an adapter that training goes on from."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish import DPOConfig, DPOTrainer
from jobs import POLICY, job, write_pairs
from runs import read_metrics, run_burnish


def _rewards(run: Path) -> list[float]:
    return [record["rewards/chosen"] for record in read_metrics(run) if record["kind"] == "train"]


def test_a_fresh_adapter_starts_at_its_reference_and_moves_away(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 2, "--use_peft", "--lora_r", 4))
    first, second = _rewards(tmp_path / "run")
    assert first == 0
    assert second != 0


def test_a_trained_adapter_goes_on_from_its_own_start(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 3, "--use_peft", "--lora_r", 4))
    run_burnish(*job(data, tmp_path / "two", "--max_steps", 2, "--model_name_or_path", tmp_path / "one" / "model"))
    first, second = _rewards(tmp_path / "two")
    assert first == 0
    assert second != 0


def test_a_peft_model_handed_over_in_python_has_its_own_start_as_reference(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 3, "--use_peft", "--lora_r", 4))
    base = AutoModelForCausalLM.from_pretrained(POLICY)
    model = PeftModel.from_pretrained(base, tmp_path / "one" / "model", is_trainable=True)
    config = DPOConfig(
        dataset_name=str(data),
        output_dir=str(tmp_path / "two"),
        global_batch_size=8,
        max_steps=2,
        learning_rate=1e-3,
        logging_steps=1,
        num_samples=0,
        reference_cache="memory",
        save_strategy="no",
    )
    trainer = DPOTrainer(model=model, args=config, processing_class=AutoTokenizer.from_pretrained(POLICY))
    trainer.train()
    trainer.close()
    first, second = _rewards(tmp_path / "two")
    assert first == 0
    assert second != 0


def test_a_loaded_adapters_start_scores_as_the_merged_model_does(tmp_path: Path) -> None:
    """Going on from an adapter, its own start is the reference: the same run against the merged copy as reference."""
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 3, "--use_peft", "--lora_r", 4))
    run_burnish("merge", tmp_path / "one", tmp_path / "merged")
    go_on = ["--max_steps", 3, "--model_name_or_path", tmp_path / "one" / "model"]
    run_burnish(*job(data, tmp_path / "own", *go_on))
    run_burnish(*job(data, tmp_path / "copy", *go_on, "--ref_model_name_or_path", tmp_path / "merged"))
    assert _rewards(tmp_path / "own")[0] == 0
    assert _rewards(tmp_path / "own") == pytest.approx(_rewards(tmp_path / "copy"), abs=1e-5)
    assert abs(_rewards(tmp_path / "own")[-1]) > 1e-4
