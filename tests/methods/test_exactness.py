"""The five promises: the same update however it is computed, and the same run from the same seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish import DPOConfig, DPOTrainer
from burnish.errors import NumericsError
from jobs import POLICY, job, model_tensors, movement_ratio, write_pairs
from runs import read_metrics, run_burnish

SAME_UPDATE = 1e-4
TIMES = ("_runtime", "_per_second", "_seconds")


def _without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in records]


@pytest.mark.parametrize(
    "flags",
    [
        ["--max_tokens_per_micro_batch", 40],
        ["--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 8],
        ["--attn_implementation", "eager"],
        ["--gradient_checkpointing"],
    ],
    ids=lambda flags: str(flags[0]),
)
def test_ten_steps_move_alike_however_they_are_computed(flags: list[Any], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=80)
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 10))
    words = job(data, tmp_path / "two", "--max_steps", 10, *flags)
    if "--per_device_train_batch_size" in flags:
        position = words.index("--global_batch_size")
        del words[position : position + 2]
    run_burnish(*words)
    assert movement_ratio(tmp_path / "one", tmp_path / "two") < SAME_UPDATE
    steps = [[r for r in read_metrics(tmp_path / name) if r["kind"] == "train"] for name in ("one", "two")]
    assert len(steps[0]) == 10
    for one, two in zip(*steps, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert one["rewards/margins"] == pytest.approx(two["rewards/margins"], abs=1e-4)


def test_separate_rows_move_the_model_as_tree_rows_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=80)
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 10))
    monkeypatch.setattr("burnish.scoring.architecture.UNSHAREABLE", {"qwen2": "this test says so"})
    run_burnish(*job(data, tmp_path / "two", "--max_steps", 10))
    computed = [read_metrics(tmp_path / name)[0]["num_computed_tokens"] for name in ("one", "two")]
    assert computed[0] < computed[1]
    assert movement_ratio(tmp_path / "one", tmp_path / "two") < SAME_UPDATE


def test_the_cached_reference_equals_the_live_one(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=24)
    cache = ["--reference_cache", "disk", "--reference_cache_dir", tmp_path / "cache"]
    otherwise_cut = ["--max_tokens_per_micro_batch", 50]
    run_burnish(*job(data, tmp_path / "live", "--num_train_epochs", 2))
    run_burnish(*job(data, tmp_path / "live-cut", "--num_train_epochs", 2, *otherwise_cut))
    run_burnish(*job(data, tmp_path / "first", "--num_train_epochs", 2, *cache))
    run_burnish(*job(data, tmp_path / "second", "--num_train_epochs", 2, *otherwise_cut, *cache))
    # The cut's own rounding, which the first steps of AdamW magnify, is not what is compared here.
    for cached, live in (("first", "live"), ("second", "live-cut")):
        for record, expected in zip(
            read_metrics(tmp_path / cached)[:6], read_metrics(tmp_path / live)[:6], strict=True
        ):
            assert record["rewards/chosen"] == pytest.approx(expected["rewards/chosen"], abs=1e-5)
            assert record["loss"] == pytest.approx(expected["loss"], abs=1e-5)


def test_the_same_seed_gives_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    for name in ("one", "two"):
        run_burnish(*job(data, tmp_path / name, "--max_steps", 5))
    one, two = model_tensors(tmp_path / "one"), model_tensors(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert _without_times(read_metrics(tmp_path / "one")) == _without_times(read_metrics(tmp_path / "two"))


def test_deterministic_kernels_give_the_same_run_on_the_cpu(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 3))
    try:
        run_burnish(*job(data, tmp_path / "two", "--max_steps", 3, "--deterministic"))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    one, two = model_tensors(tmp_path / "one"), model_tensors(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    for seed in (1, 2):
        run_burnish(*job(data, tmp_path / str(seed), "--max_steps", 2, "--seed", seed))
    assert movement_ratio(tmp_path / "1", tmp_path / "2") > 0.01


@pytest.mark.parametrize("extra", [[], ["--use_peft", "--lora_dropout", 0.1, "--lora_r", 4]], ids=["full", "lora"])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(step: int, extra: list[Any], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    held_out = write_pairs(tmp_path / "held-out.jsonl", seed=1, count=8)
    words = ["--num_train_epochs", 3, "--logging_steps", 2, "--eval_dataset_name", held_out, "--eval_steps", 3, *extra]
    words += ["--save_strategy", "steps", "--save_steps", 1]
    run_burnish(*job(data, tmp_path / "whole", *words))
    run_burnish(*job(data, tmp_path / "cut", *words))
    for later in range(step + 1, 10):
        for file in (tmp_path / "cut" / "checkpoints" / f"step-{later}").glob("MANIFEST.json"):
            file.unlink()
    run_burnish(*job(data, tmp_path / "cut", *words, "--resume_from_checkpoint", "auto"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert _without_times(read_metrics(whole)) == _without_times(read_metrics(cut))
    name = "adapter_model.safetensors" if extra else "model.safetensors"
    assert (whole / "model" / name).read_bytes() == (cut / "model" / name).read_bytes()
    state = json.loads((cut / "state.json").read_text())
    assert (state["status"], state["step"], state["exit_code"]) == ("done", 9, 0)


@pytest.mark.parametrize("loss", [["sigmoid"], ["hinge"], ["ipo"], ["sigmoid", "hinge"]])
def test_every_reward_is_zero_before_the_first_step(loss: list[str], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--loss_type", *loss))
    record = read_metrics(tmp_path / "run")[0]
    assert [record[f"rewards/{kind}"] for kind in ("chosen", "rejected", "margins", "accuracies")] == [0, 0, 0, 0]


def test_a_reference_that_is_not_the_start_stops_the_run_with_numerics(tmp_path: Path) -> None:
    config = DPOConfig(
        model_name_or_path=str(POLICY),
        output_dir=str(tmp_path / "run"),
        dataset_name=str(write_pairs(tmp_path / "pairs.jsonl")),
        num_samples=0,
    )
    trainer = DPOTrainer(args=config)
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.add_(0.1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(NumericsError, match="policy and reference differ"):
        trainer.train()
    assert json.loads((tmp_path / "run" / "state.json").read_text())["exit_code"] == 4
    trainer.close()
