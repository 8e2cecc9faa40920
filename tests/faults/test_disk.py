"""Disks that are full, broken or lie: what was committed stays, what failed leaves nothing, and the run says so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from burnish.engine.manifest import scan_checkpoints
from faults.harness import Ended, Job, assert_equal_runs, checkpoint, good_steps, state, temporaries

SAVING = pytest.mark.parametrize("saving", [(), ("--async_save",)], ids=["in the loop", "beside it"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB; where none can be mounted, RLIMIT_FSIZE in the tests below stands in."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def assert_stopped_whole(ended: Ended, run: Path, *, steps: list[int]) -> None:
    """One message, code 3, the older checkpoints good to the last byte, and nothing of the failed one."""
    assert "Traceback" not in ended.err
    assert len([line for line in ended.err.splitlines() if line.startswith("burnish: ")]) == 1
    assert good_steps(run) == steps
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == sorted(f"step-{step}" for step in steps)
    assert temporaries(run) == []
    assert (state(run)["status"], state(run)["exit_code"]) == ("failed", 3)
    assert not (run / "model").exists()


@SAVING
def test_a_disk_too_small_is_told_at_the_start_and_keeps_every_checkpoint_it_could_hold(
    saving: Any, small_disk: Path, tiny: Job, golden: Path
) -> None:
    run = small_disk / "run"
    ended = tiny.run(run, *saving, expect=3)
    first, *_ = [line for line in ended.err.splitlines() if "MB free" in line]
    assert first.startswith("warning: ")
    assert "are needed" in first
    assert ended.err.index(first) < ended.err.index("no room for a checkpoint")
    steps = good_steps(run)
    assert len(steps) > 2
    assert_stopped_whole(ended, run, steps=steps)
    ended = tiny.resume(run, "--save_total_limit", 1)
    assert f"resumed after step {steps[-1]} of" in ended.err
    assert_equal_runs(run, golden)


@SAVING
def test_a_disk_that_fills_up_in_the_middle_of_a_save_costs_that_save_alone(
    saving: Any, small_disk: Path, tiny: Job, golden: Path
) -> None:
    run, junk = small_disk / "run", small_disk / "junk"
    ended = tiny.run(run, *saving, expect=3, faults=({"name": "fill_disk_in_save", "step": 6, "junk": str(junk)},))
    assert "No space left on device" in ended.err
    assert_stopped_whole(ended, run, steps=[3])
    junk.unlink()
    tiny.resume(run, "--save_total_limit", 2)
    assert_equal_runs(run, golden)


FAULTS: dict[str, dict[str, Any]] = {
    "a file too large": {"name": "limit_file_size", "limit_bytes": 100_000},
    "an fsync that fails": {"name": "failing_fsync"},
}


@SAVING
@pytest.mark.parametrize("fault", FAULTS)
def test_a_save_that_fails_leaves_the_only_older_checkpoint(fault: str, saving: Any, tiny: Job, golden: Path) -> None:
    """One checkpoint is kept: it may go only when the next has been read back."""
    words = ("--save_total_limit", 1, *saving)
    ended = tiny.run("run", *words, expect=3, faults=({**FAULTS[fault], "step": 6},))
    assert_stopped_whole(ended, tiny.path("run"), steps=[3])
    assert "step-6 could not be written" in ended.err
    tiny.resume("run", *words)
    assert_equal_runs(tiny.path("run"), golden)
    assert good_steps(tiny.path("run")) == [32]


@SAVING
def test_a_save_that_reads_back_otherwise_leaves_the_only_older_checkpoint(
    saving: Any, tiny: Job, golden: Path
) -> None:
    words = ("--save_total_limit", 1, *saving)
    ended = tiny.run("run", *words, expect=3, faults=({"name": "corrupt_in_save", "step": 6},))
    run = tiny.path("run")
    assert "step-6 does not read back as it was written: model.safetensors" in ended.err
    found = {one.step: one.problem is None for one in scan_checkpoints(run / "checkpoints", verify="full")}
    assert found == {3: True, 6: False}
    assert (state(run)["status"], state(run)["exit_code"]) == ("failed", 3)
    ended = tiny.resume("run", *words)
    assert "checkpoint step-6 is not used" in ended.err
    assert_equal_runs(run, golden)
    assert good_steps(run) == [32]


def test_the_last_save_of_a_run_may_fail_too(tiny: Job, golden: Path) -> None:
    """With --async_save nothing comes after it that would notice, but the end of the run."""
    fault = {"name": "failing_fsync", "step": 32}
    ended = tiny.run("run", "--async_save", expect=3, faults=(fault,))
    assert "step-32 could not be written" in ended.err
    assert state(tiny.path("run"))["status"] == "failed"
    assert not (tiny.path("run") / "model").exists()
    assert not checkpoint(tiny.path("run"), 32).exists()
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)


def test_a_preempted_run_whose_save_fails_is_a_failed_one(tiny: Job) -> None:
    faults = ({"name": "failing_fsync", "step": 5}, {"name": "signal_in_step", "number": "SIGTERM", "step": 5})
    ended = tiny.run("run", "--async_save", expect=3, faults=faults)
    assert_stopped_whole(ended, tiny.path("run"), steps=[3])
