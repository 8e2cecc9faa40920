"""Faults of one rank among several: all stop at one step or all fail; resumed, the run equals the undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from burnish.engine.manifest import scan_checkpoints
from burnish.errors import EXIT_HANG
from faults.conftest import make_job
from faults.harness import Job, Server, checkpoint, copy_run, good_steps, state, temporaries
from faults.several import assert_equal_two, resume_two, run_forked_ranks, start_ranks, words_of_two
from launching import free_port

PREEMPTED = 75
FAULTY_RANK = Path(__file__).with_name("faulty_rank.py")
SPREAD = ("--parallel", "fsdp")
SECONDS_TO_LEAVE = 30


@pytest.fixture(scope="module")
def golden_two(fault_server: Server, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run of two ranks, with dropout."""
    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("golden-two"))
    run_forked_ranks(fault_server, words_of_two(job, "golden"), 2)
    return job.path("golden")


@pytest.fixture(scope="module")
def killed_slices(fault_server: Server, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in slices that was preempted after step 7, with checkpoints of steps 3, 6 and 7."""
    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("killed-slices"))
    fault = {"name": "signal_in_step", "number": "SIGTERM", "step": 7}
    run_forked_ranks(fault_server, words_of_two(job, "run", *SPREAD), 2, expect=PREEMPTED, faults={1: (fault,)})
    return job.path("run")


@pytest.mark.parametrize("struck", [(0,), (1,), (0, 1)])
def test_a_signal_to_some_ranks_stops_all_at_one_step(struck: tuple[int, ...], tiny: Job, golden_two: Path) -> None:
    """Where both are struck, the second is 50 ms later, and may be a step further by then."""
    first, signal_in_4 = struck[0], {"name": "signal_in_step", "number": "SIGTERM", "step": 4}
    faults = {rank: ({**signal_in_4, "delay": 0.0 if rank == first else 0.05},) for rank in struck}
    ended = run_forked_ranks(tiny.server, words_of_two(tiny, "run"), 2, expect=PREEMPTED, faults=faults)
    run = tiny.path("run")
    assert good_steps(run) == [3, 4]
    assert temporaries(run) == []
    assert not (run / "model").exists()
    assert (state(run)["status"], state(run)["step"], state(run)["exit_code"]) == ("preempted", 4, PREEMPTED)
    assert sum(one.err.count("goes on exactly there") for one in ended) == 1
    resume_two(tiny, "run")
    assert_equal_two(run, golden_two)


def kill_and_go_on(tiny: Job, fault: dict[str, Any], *more: Any, struck: int = 1) -> str:
    """Kill one rank of two, see the other leave by itself, and give what that one said."""
    ranks = start_ranks(tiny.server, words_of_two(tiny, "run", *more), 2, {struck: (fault,)})
    assert ranks[struck].wait().code == -signal.SIGKILL
    began = time.monotonic()
    other = ranks[1 - struck].wait()
    assert time.monotonic() - began < SECONDS_TO_LEAVE
    assert other.code not in (0, PREEMPTED)
    return other.err


def test_the_death_of_a_rank_in_a_step_ends_the_other_and_loses_nothing_that_was_saved(
    tiny: Job, golden_two: Path
) -> None:
    said = kill_and_go_on(tiny, {"name": "kill_at_step", "step": 5})
    assert "rank 0 lost another rank, whose own error is the cause" in said.splitlines()[-1]
    assert state(tiny.path("run"))["status"] == "failed"
    assert good_steps(tiny.path("run")) == [3]
    resume_two(tiny, "run")
    assert_equal_two(tiny.path("run"), golden_two)


@pytest.mark.parametrize("struck", [0, 1])
def test_the_death_of_a_rank_in_a_save_commits_nothing_by_halves(struck: int, tiny: Job, golden_two: Path) -> None:
    kill_and_go_on(tiny, {"name": "kill_as_save_begins", "step": 6}, struck=struck)
    assert good_steps(tiny.path("run")) == [3]
    resume_two(tiny, "run")
    assert_equal_two(tiny.path("run"), golden_two)


@pytest.mark.parametrize("struck", [0, 1])
def test_the_death_of_a_rank_that_writes_slices_commits_nothing_by_halves(struck: int, tiny: Job) -> None:
    """The other rank has written its slices by then, or waits to be told of them."""
    kill_and_go_on(tiny, {"name": "kill_after_shard", "step": 6}, *SPREAD, struck=struck)
    assert good_steps(tiny.path("run")) == [3]
    assert list((tiny.path("run") / "checkpoints").glob("step-6*/*-of-2.safetensors"))
    resume_two(tiny, "run", *SPREAD)
    assert good_steps(tiny.path("run")) == [3, 6, 9]
    assert temporaries(tiny.path("run")) == []


def test_a_stopped_rank_ends_the_other_with_the_stacks_of_a_hang(tiny: Job, golden_two: Path) -> None:
    fault = {"name": "signal_in_step", "number": "SIGSTOP", "step": 5}
    ranks = start_ranks(tiny.server, words_of_two(tiny, "run", "--hang_timeout", "2s"), 2, {1: (fault,)})
    ended = ranks[0].wait(40)
    ranks[1].send(signal.SIGKILL)
    ranks[1].wait()
    assert ended.code == EXIT_HANG
    assert "burnish: stacks of rank 0:" in ended.err
    resume_two(tiny, "run")
    assert_equal_two(tiny.path("run"), golden_two)


@pytest.mark.parametrize("name", ["model-1-of-2", "optimizer-0-of-2", "rng-1"])
def test_one_ranks_lost_part_is_named_and_the_checkpoint_before_taken(
    name: str, tiny: Job, killed_slices: Path
) -> None:
    run = copy_run(killed_slices, tiny.path("run"))
    (checkpoint(run, 7) / f"{name}.safetensors").unlink()
    ended = resume_two(tiny, "run", *SPREAD)
    (warning,) = [line for line in ended[0].err.splitlines() if "is not used" in line]
    assert "step-7" in warning
    assert f"{name}.safetensors" in warning
    assert "resumed after step 6 of" in ended[0].err
    assert not any("is not used" in one.err for one in ended[1:])


@pytest.mark.parametrize("name", ["model-1-of-2", "optimizer-1-of-2"])
def test_where_one_ranks_part_is_nowhere_the_run_stops_and_names_it(name: str, tiny: Job, killed_slices: Path) -> None:
    run = copy_run(killed_slices, tiny.path("run"))
    for step in (3, 6):
        shutil.rmtree(checkpoint(run, step))
    (checkpoint(run, 7) / f"{name}.safetensors").unlink()
    words = words_of_two(tiny, "run", *SPREAD, "--resume_from_checkpoint", "auto")
    ranks = start_ranks(tiny.server, words, 2)
    ended = [rank.wait() for rank in ranks]
    assert ended[0].code == 3
    assert ended[1].code != 0
    assert f"{name}.safetensors" in ended[0].err
    assert "Traceback" not in ended[0].err
    assert [one.step for one in scan_checkpoints(run / "checkpoints")] == [7]


@pytest.mark.slow
def test_torchrun_starts_both_ranks_again_and_they_finish_as_if_nothing_had_been(tiny: Job, golden_two: Path) -> None:
    words = words_of_two(tiny, "run", "--resume_from_checkpoint", "auto")
    job = tiny.path("job.json")
    fault = {"name": "kill_at_step", "step": 5}
    job.write_text(json.dumps({"words": [str(word) for word in words], "faults": {"1": [fault]}}))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port()), str(FAULTY_RANK), str(job)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-9000:]
    assert "resumed after step 3 of" in done.stderr
    assert_equal_two(tiny.path("run"), golden_two)
