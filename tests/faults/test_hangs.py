"""A run that hangs writes its stacks and ends with code 134; resumed, it equals the uninterrupted run."""

from __future__ import annotations

from pathlib import Path

from burnish.engine.manifest import scan_checkpoints
from burnish.errors import EXIT_HANG
from faults.harness import Job, assert_equal_runs, state


def test_a_hang_in_a_step_ends_with_its_stacks(tiny: Job, golden: Path) -> None:
    ended = tiny.run("run", "--hang_timeout", "2s", expect=EXIT_HANG, faults=({"name": "hang_in_step", "step": 5},))
    assert "burnish: stacks of rank 0:" in ended.err
    assert "injections.py" in ended.err  # the frame that hangs
    last = ended.err.splitlines()[-1]
    assert last.startswith("burnish: rank 0: no sign of life for 2s (--hang_timeout)")
    assert last.endswith("Aborting with code 134.")
    assert (state(tiny.path("run"))["status"], state(tiny.path("run"))["exit_code"]) == ("failed", EXIT_HANG)
    assert scan_checkpoints(tiny.path("run") / "checkpoints")[-1].step == 3
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)


def test_slow_steps_are_no_hang(tiny: Job, golden: Path) -> None:
    tiny.run("run", "--hang_timeout", "2s", faults=({"name": "slow_steps", "seconds": 0.1},))
    assert_equal_runs(tiny.path("run"), golden)


def test_a_wrong_duration_is_refused(tiny: Job) -> None:
    ended = tiny.run("run", "--hang_timeout", "10", expect=2)
    assert "--hang_timeout" in ended.err
    assert "must be a duration" in ended.err
