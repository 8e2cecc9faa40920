"""FSDP2: slices on two and four ranks are the run of one process, and their checkpoints fit any number of ranks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from burnish.engine.shard_files import join_shards
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOConfig
from jobs import job, movement_ratio, write_pairs
from launching import run_ranks
from ranks.test_data_parallel import SAME_LOSS, SAME_UPDATE, assert_same_records, write_one_long_row
from runs import read_metrics, run_burnish

COUNTS = (2, 4)
JOBS = ("uneven", "long", "lora")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each job in one process, then spread over two and four ranks; folders are named <job>-<ranks>."""
    folder = tmp_path_factory.mktemp("sharded")
    uneven = write_pairs(folder / "uneven.jsonl", count=51)
    long = write_one_long_row(folder / "long.jsonl")
    held_out = write_pairs(folder / "held-out.jsonl", seed=1, count=7)
    saving = ["--save_strategy", "steps", "--save_steps", 5]
    jobs: dict[str, list[Any]] = {
        "uneven": [uneven, "--eval_dataset_name", held_out, "--eval_steps", 4, "--num_samples", 1, *saving],
        "long": [long, "--max_tokens_per_micro_batch", 100, "--gradient_checkpointing", "--max_grad_norm", 0.1],
        "lora": [uneven, "--use_peft", "--lora_r", 4, "--num_samples", 1],
    }

    def words(name: str, ranks: int, *more: Any) -> list[Any]:
        data, *flags = jobs[name]
        cache = ["--reference_cache", "disk", "--reference_cache_dir", folder / f"cache-{name}-{ranks}"]
        return job(data, folder / f"{name}-{ranks}", "--global_batch_size", 7, "--max_steps", 10, *cache, *flags, *more)

    for name in JOBS:
        run_burnish(*words(name, 1))
    for ranks in COUNTS:
        # Some completions are known before, on whichever rank they fall: the others are scored by all ranks together.
        known = job(uneven, folder / f"known-{ranks}", "--global_batch_size", 7, "--reference_cache", "disk")
        known += ["--reference_cache_dir", folder / f"cache-known-{ranks}", "--overwrite", "--max_steps"]
        run_burnish(*known, 1)
        jobs_of_ranks = [words(name, ranks, "--parallel", "fsdp") for name in JOBS]
        run_ranks(ranks, [*jobs_of_ranks, [*known, 10, "--parallel", "fsdp"]], folder)
    return folder


@pytest.fixture(scope="module")
def half_precision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One job in bf16 and in float32 in one process, and in bf16 spread over two ranks, with and without an adapter."""
    folder = tmp_path_factory.mktemp("half")
    data = write_pairs(folder / "uneven.jsonl", count=51)

    def words(name: str, *more: Any) -> list[Any]:
        return job(data, folder / name, "--global_batch_size", 7, "--max_steps", 10, "--gradient_checkpointing", *more)

    run_burnish(*words("float32"))
    run_burnish(*words("one", "--precision", "bf16"))
    slices = ("--precision", "bf16", "--parallel", "fsdp")
    run_ranks(2, [words("two", *slices), words("adapter", *slices, "--use_peft", "--lora_r", 4)], folder)
    return folder


@pytest.mark.slow
def test_bf16_in_slices_rounds_as_bf16_in_one_process_does(half_precision: Path) -> None:
    rounding = movement_ratio(half_precision / "float32", half_precision / "one")
    assert 1e-3 < movement_ratio(half_precision / "float32", half_precision / "two") < 1.25 * rounding
    losses = {
        name: [record["loss"] for record in read_metrics(half_precision / name) if record["kind"] == "train"]
        for name in ("float32", "one", "two", "adapter")
    }
    assert losses["two"][0] == losses["adapter"][0] == pytest.approx(0.693147, abs=1e-6)
    assert losses["two"] == pytest.approx(losses["one"], abs=2e-3)
    assert losses["adapter"][-1] != losses["adapter"][0]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", COUNTS)
@pytest.mark.parametrize("name", JOBS)
def test_slices_change_no_record(name: str, ranks: int, runs: Path) -> None:
    assert_same_records(runs / f"{name}-1", runs / f"{name}-{ranks}")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", COUNTS)
@pytest.mark.parametrize("name", ["uneven", "long"])
def test_slices_make_one_ordinary_model_that_moved_alike(name: str, ranks: int, runs: Path) -> None:
    assert movement_ratio(runs / f"{name}-1", runs / f"{name}-{ranks}") < SAME_UPDATE
    folders = [{path.name for path in (runs / f"{name}-{n}" / "model").iterdir()} for n in (1, ranks)]
    assert folders[0] == folders[1]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", COUNTS)
def test_a_reference_in_slices_is_asked_by_all_ranks_where_one_has_to(ranks: int, runs: Path) -> None:
    """Values that came about in other company differ by rounding, so that ties at the start fall either way."""
    losses = [
        [record["loss"] for record in read_metrics(runs / run) if record["kind"] == "train"]
        for run in ("uneven-1", f"known-{ranks}")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=SAME_LOSS)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", COUNTS)
def test_slices_of_an_adapter_make_one_ordinary_adapter(ranks: int, runs: Path) -> None:
    one, several = (load_file(runs / f"lora-{n}" / "model" / "adapter_model.safetensors") for n in (1, ranks))
    assert set(one) == set(several)
    apart = sum((one[name] - several[name]).square().sum() for name in one)
    assert (apart / sum(tensor.square().sum() for tensor in one.values())) ** 0.5 < SAME_UPDATE


@pytest.mark.slow
@pytest.mark.parametrize("ranks", COUNTS)
def test_all_ranks_answer_one_sample_before_and_after(ranks: int, runs: Path) -> None:
    replies = [
        [json.loads(line)["reply"] for line in (runs / f"lora-{n}" / "samples.jsonl").read_text().splitlines()]
        for n in (1, ranks)
    ]
    assert len(replies[0]) == 2
    assert replies[1] == replies[0]


@pytest.mark.slow
@pytest.mark.parametrize(("saved_by", "resumed_by"), [(2, 2), (4, 2), (4, 1), (1, 2)])
def test_a_checkpoint_of_slices_is_resumed_by_any_number_of_ranks(
    saved_by: int, resumed_by: int, runs: Path, tmp_path: Path
) -> None:
    """Also from one process into slices, and from slices into one process."""
    whole, cut = runs / f"uneven-{saved_by}", tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "model")
    names = {path.name for path in (cut / "checkpoints" / "step-5").iterdir()}
    assert ("model-0-of-4.safetensors" in names) == (saved_by == 4)
    (cut / "checkpoints" / "step-10" / "MANIFEST.json").unlink()
    flags = ["--global_batch_size", 7, "--max_steps", 10, "--eval_dataset_name", runs / "held-out.jsonl"]
    flags += ["--eval_steps", 4, "--save_strategy", "steps", "--save_steps", 5, "--reference_cache", "disk"]
    flags += ["--reference_cache_dir", runs / f"cache-uneven-{saved_by}", "--resume_from_checkpoint", "auto"]
    words = job(runs / "uneven.jsonl", cut, *flags)
    if resumed_by == 1:
        run_burnish(*words)
    else:
        run_ranks(resumed_by, [[*words, "--parallel", "fsdp"]], tmp_path)
    losses = [[record["loss"] for record in read_metrics(run) if record["kind"] == "train"] for run in (whole, cut)]
    assert len(losses[1]) == 10
    assert losses[1] == pytest.approx(losses[0], abs=SAME_LOSS)
    assert movement_ratio(whole, cut) < SAME_UPDATE


def test_slices_are_put_together_in_the_order_of_ranks() -> None:
    parts = {
        f"optimizer-{rank}-of-3": {"w.exp_avg": torch.full((rank,), float(rank)), "w.step": torch.tensor(7.0)}
        for rank in (2, 0, 1)
    }
    joined = join_shards({**parts, "rng-0": {"python": torch.ones(1)}, "model-0-of-2": {"w": torch.ones(1)}})
    assert set(joined) == {"optimizer", "rng-0"}  # a group that lacks a rank's slices is none
    assert joined["optimizer"]["w.exp_avg"].tolist() == [1.0, 2.0, 2.0]
    assert joined["optimizer"]["w.step"].item() == 7.0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"async_save": True}, "--async_save"),
        ({"precision": "fp16"}, "bf16"),
        ({"sync_ref_model": True}, "--parallel ddp"),
    ],
)
def test_what_slices_cannot_do_is_refused_by_name(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        DPOConfig(parallel="fsdp", **settings)
