"""DeepSpeed's ZeRO 1 and 2: the run of one process, and checkpoints that any way of spreading goes on from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from deepspeed_package import CannotInstall, deepspeed_environment
from jobs import job, movement_ratio, write_pairs
from launching import run_program, run_ranks
from ranks.test_data_parallel import SAME_LOSS, SAME_UPDATE, assert_same_records, write_one_long_row
from runs import read_metrics, run_burnish

pytestmark = pytest.mark.slow  # 160 s, and 30 s for the package where it is not there yet

STAGES = (1, 2)
SKIPPING = (
    "--learning_rate",
    1e-4,
    "--loss_spike",
    "skip",
    "--loss_spike_sigmas",
    0.2,
    "--loss_spike_window",
    8,
    "--max_skipped_steps",
    99,
)
RESUMED = ((2, "zero-1"), (0, "zero-2"), (1, "ddp"), (2, "fsdp"), (2, "one"))
SAVING = ("--save_strategy", "steps", "--save_steps", 5)


@pytest.fixture(scope="module", autouse=True)
def _deepspeed() -> Any:
    """Let the ranks find DeepSpeed."""
    try:
        added = deepspeed_environment()
    except CannotInstall as reason:
        pytest.skip(str(reason))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in added.items():
            patch.setitem(os.environ, name, value)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, _deepspeed: None) -> Path:
    """Each job in one process, then on two ranks by each stage; folders are named <job>-0, <job>-1 and <job>-2."""
    folder = tmp_path_factory.mktemp("zero")
    uneven = write_pairs(folder / "uneven.jsonl", count=51)
    long = write_one_long_row(folder / "long.jsonl")
    held_out = write_pairs(folder / "held-out.jsonl", seed=1, count=7)
    jobs: dict[str, list[Any]] = {
        "uneven": [uneven, "--eval_dataset_name", held_out, "--eval_steps", 4, "--num_samples", 1, *SAVING],
        "long": [long, "--max_tokens_per_micro_batch", 100, "--gradient_checkpointing", "--max_grad_norm", 0.1],
        "lora": [uneven, "--use_peft", "--lora_r", 4],
        "skips": [uneven, *SKIPPING],
    }
    for stage in STAGES:
        options = {"zero_optimization": {"stage": stage}, "train_batch_size": "auto"}
        (folder / f"{stage}.json").write_text(json.dumps(options))

    def words(name: str, stage: int) -> list[Any]:
        data, *flags = jobs[name]
        spread = ["--deepspeed", folder / f"{stage}.json"] if stage else []
        base = ["--global_batch_size", 7, "--max_steps", 24 if name == "skips" else 10]
        return job(data, folder / f"{name}-{stage}", *base, *flags, *spread)

    for name in jobs:
        run_burnish(*words(name, 0))
    half = ("--precision", "bf16")
    run_burnish(*words("long", 0), "--output_dir", folder / "half-0", *half)
    halves = [[*words("long", stage), "--output_dir", folder / f"half-{stage}", *half] for stage in STAGES]
    run_ranks(2, [*(words(name, stage) for name in jobs for stage in STAGES), *halves], folder)
    run_ranks(4, [[*words("long", stage), "--output_dir", folder / f"four-{stage}"] for stage in STAGES], folder)
    return folder


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["uneven", "long", "lora"])
def test_zero_changes_no_record(name: str, stage: int, runs: Path) -> None:
    assert_same_records(runs / f"{name}-0", runs / f"{name}-{stage}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["uneven", "long"])
def test_zero_makes_one_ordinary_model_that_moved_alike(name: str, stage: int, runs: Path) -> None:
    assert movement_ratio(runs / f"{name}-0", runs / f"{name}-{stage}") < SAME_UPDATE
    folders = [{path.name for path in (runs / f"{name}-{n}" / "model").iterdir()} for n in (0, stage)]
    assert folders[0] == folders[1]


@pytest.mark.parametrize("stage", STAGES)
def test_four_ranks_train_as_one_process(stage: int, runs: Path) -> None:
    assert_same_records(runs / "long-0", runs / f"four-{stage}")
    assert movement_ratio(runs / "long-0", runs / f"four-{stage}") < SAME_UPDATE


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_rounds_as_in_one_process(stage: int, runs: Path) -> None:
    rounding = movement_ratio(runs / "long-0", runs / "half-0")
    assert 1e-3 < movement_ratio(runs / "long-0", runs / f"half-{stage}") < 1.25 * rounding
    losses = [
        [record["loss"] for record in read_metrics(runs / run) if record["kind"] == "train"]
        for run in ("half-0", f"half-{stage}")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_a_skipped_step_leaves_no_gradient_behind(stage: int, runs: Path) -> None:
    """One that is kept would go into the next step that is taken."""
    one, two = (read_metrics(runs / f"skips-{n}") for n in (0, stage))
    kinds = [[record["kind"] for record in records] for records in (one, two)]
    assert kinds[0].count("oddity") >= 2
    assert kinds[1] == kinds[0]
    assert movement_ratio(runs / "skips-0", runs / f"skips-{stage}") < SAME_UPDATE


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_has_the_form_of_one_process(stage: int, runs: Path) -> None:
    one, two = (runs / f"uneven-{n}" / "checkpoints" / "step-5" for n in (0, stage))
    ranks_own = {"rng-1.safetensors", "metric-sums-1.safetensors"}
    assert {path.name for path in two.iterdir()} - ranks_own == {path.name for path in one.iterdir()}
    states = [load_file(folder / "optimizer.safetensors") for folder in (one, two)]
    assert {name: value.shape for name, value in states[1].items()} == {k: v.shape for k, v in states[0].items()}
    for name, value in states[0].items():
        apart = (states[1][name] - value).double().norm()
        assert apart <= 1e-4 * value.double().norm(), name


@pytest.fixture(scope="module")
def resumed(runs: Path) -> Path:
    """Runs of `uneven` that are cut after step 5 and go on otherwise; folders are named <saved by>-to-<resumed by>."""
    folder = runs / "resumed"
    flags = {stage: ["--deepspeed", runs / f"{stage}.json"] for stage in STAGES}
    ways: dict[str, list[Any]] = {"zero-1": flags[1], "zero-2": flags[2], "fsdp": ["--parallel", "fsdp"]}

    def words(saved_by: int, way: str) -> list[Any]:
        cut = folder / f"{saved_by}-to-{way}"
        shutil.copytree(runs / f"uneven-{saved_by}", cut)
        shutil.rmtree(cut / "model")
        (cut / "checkpoints" / "step-10" / "MANIFEST.json").unlink()
        settings = ["--global_batch_size", 7, "--max_steps", 10, "--eval_steps", 4, *SAVING]
        settings += ["--eval_dataset_name", runs / "held-out.jsonl", "--resume_from_checkpoint", "auto"]
        return job(runs / "uneven.jsonl", cut, *settings, *ways.get(way, []))

    run_burnish(*words(2, "one"))
    run_ranks(2, [words(saved_by, way) for saved_by, way in RESUMED if way != "one"], runs)
    return folder


@pytest.mark.parametrize(("saved_by", "way"), RESUMED)
def test_a_checkpoint_is_resumed_by_any_way_of_spreading(saved_by: int, way: str, runs: Path, resumed: Path) -> None:
    whole, cut = runs / f"uneven-{saved_by}", resumed / f"{saved_by}-to-{way}"
    losses = [[record["loss"] for record in read_metrics(run) if record["kind"] == "train"] for run in (whole, cut)]
    assert len(losses[1]) == 10
    assert losses[1] == pytest.approx(losses[0], abs=SAME_LOSS)
    assert movement_ratio(whole, cut) < SAME_UPDATE


def test_one_process_trains_as_without_the_json(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("burnish.methods.zero.check_deepspeed_is_installed", lambda: None)
    words = job(runs / "uneven.jsonl", tmp_path / "run", "--global_batch_size", 7, "--max_steps", 10)
    run_burnish(*words, "--deepspeed", runs / "1.json")
    assert "ZeRO-1 is not used" in capsys.readouterr().err
    losses = [
        [record["loss"] for record in read_metrics(run) if record["kind"] == "train"]
        for run in (runs / "uneven-0", tmp_path / "run")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)


HELD = (
    (None, "fp32", {"stage": 1}),
    (None, "fp32", {"stage": 2}),
    (None, "bf16", {"stage": 1, "reduce_bucket_size": 1_000_000}),
    (None, "bf16", {"stage": 2, "reduce_bucket_size": 1_000_000}),
    (None, "fp32", {"stage": 1, "overlap_comm": True}),
    (["all-linear"], "bf16", {"stage": 2, "overlap_comm": True}),
)


def test_a_device_of_two_under_zero_holds_what_is_estimated_to_a_tenth(tmp_path: Path) -> None:
    done = run_program(2, "zero_bytes.py", HELD, tmp_path)
    held = [json.loads(line.removeprefix("BYTES ")) for line in done.stdout.splitlines() if line.startswith("BYTES ")]
    assert len(held) == len(HELD)
    for case, (estimated, measured) in zip(HELD, held, strict=True):
        assert estimated == pytest.approx(measured, rel=0.1), case
