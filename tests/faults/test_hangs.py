"""A run that hangs writes its stacks and ends with code 134; resumed, it equals the uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def _rank_pids(launcher: int) -> list[int]:
    return sorted(int(pid) for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
def test_a_stopped_rank_is_noticed_by_the_other(tiny: Job) -> None:
    words = ["launch", "--num_processes", "2", *tiny.words("run", "--num_train_epochs", 200, "--hang_timeout", "4s")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "burnish", *map(str, words)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        metrics, ends = tiny.path("run") / "metrics.jsonl", time.monotonic() + 90
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            assert time.monotonic() < ends, "the run does not get going"
            time.sleep(0.1)
        stopped = _rank_pids(launcher.pid)[1]
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        _, err = launcher.communicate(timeout=60)
    finally:
        launcher.kill()
    assert time.monotonic() - began < 45
    assert launcher.returncode == EXIT_HANG
    assert "burnish: stacks of rank 0:" in err
    assert "(--hang_timeout)" in err
