"""One rank, two and four: the same losses, the same weights, the same records, and nothing done twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from burnish.models.logp_store import _MAGIC, _read_records  # pyright: ignore[reportPrivateUsage]
from jobs import job, movement_ratio, write_pairs
from launching import run_ranks
from runs import read_metrics, run_burnish

pytestmark = pytest.mark.slow

COUNTS = (2, 4)
TIMES = ("_runtime", "_per_second", "_seconds")
SAME_LOSS = 1e-5
SAME_UPDATE = 1e-4
LONG_ROW = 400


def write_one_long_row(path: Path) -> Path:
    """Short pairs and now and then one that is longer than all others of its step together."""
    write_pairs(path, seed=5, count=40)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    generator = np.random.default_rng(7)
    for row in rows[::6]:
        row["prompt_ids"] = generator.integers(3, 500, LONG_ROW).tolist()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def assert_same_records(run: Path, other: Path) -> None:
    """Two runs logged the same steps with the same values, but for what was measured by the clock."""
    records, others = read_metrics(run), read_metrics(other)
    assert [(record["step"], record["kind"]) for record in records] == [(r["step"], r["kind"]) for r in others]
    for expected, record in zip(records, others, strict=True):
        assert list(record) == list(expected)
        for key in record:
            if key.endswith(TIMES):
                continue
            if isinstance(record[key], float):
                tolerance = SAME_LOSS if "loss" in key else 1e-4
                assert record[key] == pytest.approx(expected[key], abs=tolerance, rel=1e-5), key
            else:
                assert record[key] == expected[key], key


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each job on one rank, then on two and on four; folders are named <job>-<ranks>."""
    folder = tmp_path_factory.mktemp("ranks")
    uneven = write_pairs(folder / "uneven.jsonl", count=51)
    long = write_one_long_row(folder / "long.jsonl")
    few = write_pairs(folder / "few.jsonl", count=3)
    held_out = write_pairs(folder / "held-out.jsonl", seed=1, count=7)
    jobs: dict[str, tuple[Path, list[Any]]] = {
        "uneven": (uneven, ["--max_steps", 10, "--eval_dataset_name", held_out, "--eval_steps", 4, "--num_samples", 1]),
        "long": (long, ["--max_steps", 10, "--max_tokens_per_micro_batch", 100, "--logging_steps", 3]),
        "few": (few, ["--max_steps", 10, "--loss_type", "sigmoid", "hinge"]),
        "lora": (uneven, ["--max_steps", 10, "--use_peft", "--lora_r", 4]),
        "twice": (uneven, ["--num_train_epochs", 2]),
    }

    def words(name: str, ranks: int) -> list[Any]:
        data, flags = jobs[name]
        cache = ["--reference_cache", "disk", "--reference_cache_dir", folder / f"cache-{name}-{ranks}"]
        return job(data, folder / f"{name}-{ranks}", "--global_batch_size", 7, *cache, *flags)

    for name in jobs:
        run_burnish(*words(name, 1))
    for ranks in COUNTS:
        run_ranks(ranks, [words(name, ranks) for name in jobs], folder)
    return folder


@pytest.mark.parametrize("ranks", COUNTS)
@pytest.mark.parametrize("name", ["uneven", "long", "few", "lora", "twice"])
def test_ranks_change_no_record(name: str, ranks: int, runs: Path) -> None:
    assert_same_records(runs / f"{name}-1", runs / f"{name}-{ranks}")


@pytest.mark.parametrize("ranks", COUNTS)
@pytest.mark.parametrize("name", ["uneven", "long", "few"])
def test_ranks_move_the_weights_alike(name: str, ranks: int, runs: Path) -> None:
    assert movement_ratio(runs / f"{name}-1", runs / f"{name}-{ranks}") < SAME_UPDATE


@pytest.mark.parametrize("ranks", COUNTS)
def test_ranks_move_an_adapter_alike(ranks: int, runs: Path) -> None:
    one, several = (load_file(runs / f"lora-{n}" / "model" / "adapter_model.safetensors") for n in (1, ranks))
    apart = sum((one[name] - several[name]).square().sum() for name in one)
    assert (apart / sum(tensor.square().sum() for tensor in one.values())) ** 0.5 < SAME_UPDATE


def _header(path: Path) -> bytes:
    """The line that says whose reference a file is of, behind the format's name."""
    content = path.read_bytes()
    return content[: content.index(b"\n", len(_MAGIC)) + 1]


@pytest.mark.parametrize("ranks", COUNTS)
def test_each_completion_is_scored_by_the_reference_once_over_all_ranks_and_epochs(ranks: int, runs: Path) -> None:
    files = list((runs / f"cache-twice-{ranks}").glob("*/*.logps"))
    stored = Counter(key for path in files for key in _read_records(path, _header(path)))
    assert len(files) == ranks
    assert len(stored) == 2 * 51
    assert set(stored.values()) == {1}


@pytest.mark.parametrize("ranks", COUNTS)
def test_rank_0_alone_prints_and_answers(ranks: int, runs: Path) -> None:
    run = runs / f"uneven-{ranks}"
    answers = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert [answer["phase"] for answer in answers] == ["before", "after"]
    assert json.loads((run / "state.json").read_text())["status"] == "done"


@pytest.mark.parametrize("ranks", [2])
def test_a_run_of_several_ranks_goes_on_from_its_checkpoint_bit_for_bit(ranks: int, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=51)
    flags = ["--global_batch_size", 7, "--max_steps", 6, "--logging_steps", 2, "--save_strategy", "steps"]
    flags += ["--save_steps", 3, "--use_peft", "--lora_r", 4, "--lora_dropout", 0.1]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_ranks(ranks, [job(data, whole, *flags), job(data, cut, *flags)], tmp_path)
    (cut / "checkpoints" / "step-6" / "MANIFEST.json").unlink()
    run_ranks(ranks, [job(data, cut, *flags, "--resume_from_checkpoint", "auto")], tmp_path)
    name = "model/adapter_model.safetensors"
    assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert [record.get("loss") for record in read_metrics(whole)] == [r.get("loss") for r in read_metrics(cut)]
