"""`--save_failure continue`: a checkpoint that cannot be written costs that checkpoint, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from faults.harness import (
    Job,
    assert_equal_runs,
    checkpoint,
    good_steps,
    records,
    state,
    temporaries,
    tensors,
)
from faults.several import run_forked_ranks, words_of_two
from faults.test_disk import SAVING, small_disk  # noqa: F401 (a fixture)

GOES_ON = ("--save_failure", "continue")
LIMIT = {"name": "limit_file_size", "limit_bytes": 100_000}


def lost(run: Path) -> list[int]:
    """Steps whose save was lost, by the run's own records."""
    return [record["step"] for record in records(run) if record["kind"] == "lost_save"]


def assert_equal_but_for_lost_saves(run: Path, golden: Path) -> None:
    """Weights, optimizer and all other records are the uninterrupted run's, bit for bit."""
    one, two = tensors(run), tensors(golden)
    assert [name for name in two if not one[name].equal(two[name])] == []
    assert [record for record in records(run) if record["kind"] != "lost_save"] == records(golden)


@SAVING
def test_saves_that_fail_are_told_and_the_next_one_that_fits_is_written(saving: Any, tiny: Job, golden: Path) -> None:
    """Two saves meet a limit on file sizes; one checkpoint is kept, and it is the older one until the third."""
    words = (*GOES_ON, "--save_total_limit", 1, "--save_steps", 8, *saving)
    ended = tiny.run("run", *words, faults=({**LIMIT, "step": 16, "until": 32},))
    run = tiny.path("run")
    assert lost(run) == [16, 24]
    warnings = [line for line in ended.err.splitlines() if "training goes on" in line]
    assert [
        f"{checkpoint(run, step)} could not be written: File too large" in line
        for step, line in zip((16, 24), warnings, strict=True)
    ] == [True, True]
    assert good_steps(run) == [32]
    assert temporaries(run) == []
    assert (state(run)["status"], state(run)["exit_code"]) == ("done", 0)
    assert_equal_but_for_lost_saves(run, golden)


def test_a_run_killed_after_lost_saves_goes_on_from_the_older_checkpoint(tiny: Job, golden: Path) -> None:
    faults = ({**LIMIT, "step": 6}, {"name": "kill_at_step", "step": 11})
    tiny.run("run", *GOES_ON, "--save_total_limit", 1, faults=faults, expect=-9)
    assert lost(tiny.path("run")) == [6, 9]
    assert good_steps(tiny.path("run")) == [3]
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)


@SAVING
def test_a_disk_that_others_fill_for_a_while_costs_no_record(
    saving: Any,
    small_disk: Path,  # noqa: F811 (the fixture)
    tiny: Job,
    golden: Path,
) -> None:
    """Not one byte is free from step 6 to 18: records wait in memory, and stand in their order afterwards."""
    run = small_disk / "run"
    fault = {"name": "fill_disk_in_save", "step": 6, "until": 18, "junk": str(small_disk / "junk")}
    ended = tiny.run(run, *GOES_ON, "--save_total_limit", 2, *saving, faults=(fault,))
    assert lost(run) == [6, 9, 12, 15]
    missing = [line for line in ended.err.splitlines() if "MB are missing" in line]
    assert len(missing) == 4
    assert ended.err.count("records wait in memory until there is room") == 1
    assert_equal_but_for_lost_saves(run, golden)


def test_a_model_that_cannot_be_written_at_the_end_is_an_error_all_the_same(tiny: Job) -> None:
    ended = tiny.run("run", *GOES_ON, "--max_steps", 6, expect=3, faults=({**LIMIT, "step": 6},))
    run = tiny.path("run")
    assert lost(run) == [6, 6]  # the one that is due, and the last one's second try
    assert "model" in ended.err.splitlines()[-2]
    assert (state(run)["status"], state(run)["exit_code"]) == ("failed", 3)
    assert not (run / "model").exists()
    assert good_steps(run) == [3]


@SAVING
@pytest.mark.parametrize("step", [5, 6], ids=["between saves", "at a save"])
def test_a_preempted_run_that_cannot_save_never_says_that_it_has(step: int, saving: Any, tiny: Job) -> None:
    """A scheduler takes 75 for "saved": a lost save at the very step is tried again, and then ends the run with 3."""
    signal = {"name": "signal_in_step", "number": "SIGTERM", "step": step}
    ended = tiny.run("run", *GOES_ON, *saving, expect=3, faults=({**LIMIT, "step": step}, signal))
    run = tiny.path("run")
    assert f"step-{step} could not be written" in ended.err.splitlines()[-1]
    assert "a checkpoint is saved" not in ended.err
    assert (state(run)["status"], state(run)["exit_code"]) == ("failed", 3)
    assert good_steps(run) == [3]


@SAVING
def test_the_best_model_is_the_best_of_those_that_were_saved(saving: Any, tiny: Job) -> None:
    """The checkpoint of the first evaluation, the best, is lost: what is best is then looked for without it."""
    words = ("--eval_dataset_name", tiny.held_out, "--eval_steps", 4, "--save_steps", 4, "--max_steps", 12)
    words = (*words, "--load_best_model_at_end", "--greater_is_better", "true", *GOES_ON)
    ended = tiny.run("run", *words, *saving, faults=({**LIMIT, "step": 4, "until": 8},))
    run = tiny.path("run")
    losses = {record["step"]: record["eval_loss"] for record in records(run) if record["kind"] == "eval"}
    assert losses[4] > losses[8] > losses[12]
    assert lost(run) == [4]
    assert "loaded the best model: step 8" in ended.err
    model, saved = (load_file(folder / "model.safetensors") for folder in (run / "model", checkpoint(run, 8)))
    assert [name for name, tensor in saved.items() if not model[name].equal(tensor)] == []


@pytest.mark.parametrize(("parallel", "struck"), [("ddp", 0), ("fsdp", 0), ("fsdp", 1)])
def test_a_save_that_one_rank_cannot_write_is_lost_on_all(parallel: str, struck: int, tiny: Job) -> None:
    fault = {**LIMIT, "limit_bytes": 20_000, "step": 6, "until": 9}
    words = words_of_two(tiny, "run", "--parallel", parallel, *GOES_ON)
    run_forked_ranks(tiny.server, words, 2, faults={struck: (fault,)})
    run = tiny.path("run")
    assert lost(run) == [6]
    assert good_steps(run) == [3, 9]
    assert temporaries(run) == []
