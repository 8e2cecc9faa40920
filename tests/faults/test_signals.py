"""A run that is asked to stop commits one checkpoint and exits with 75; resumed, it equals the uninterrupted run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from burnish.engine.manifest import scan_checkpoints
from faults.harness import Job, assert_equal_runs, good_steps, records, state, temporaries

PREEMPTED = 75


def interrupt(tiny: Job, *faults: dict[str, Any], words: tuple[Any, ...] = ()) -> Any:
    ended = tiny.run("run", *words, expect=PREEMPTED, faults=faults)
    run = tiny.path("run")
    assert not (run / "model").exists()
    assert temporaries(run) == []
    assert (state(run)["status"], state(run)["exit_code"]) == ("preempted", PREEMPTED)
    assert "--resume_from_checkpoint auto goes on exactly there" in ended.err.splitlines()[-1]
    assert [one.problem for one in scan_checkpoints(run / "checkpoints", verify="full") if one.problem] == []
    return ended


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_in_a_step_finishes_it_and_saves(number: str, tiny: Job, golden: Path) -> None:
    interrupt(tiny, {"name": "signal_in_step", "number": number, "step": 5})
    assert state(tiny.path("run"))["step"] == 5
    newest = scan_checkpoints(tiny.path("run") / "checkpoints")[-1]
    assert newest.step == 5
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)
    assert state(tiny.path("run"))["status"] == "done"


@pytest.mark.parametrize("saving", [(), ("--async_save",)], ids=["in the loop", "beside it"])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_while_saving_leaves_that_checkpoint_and_no_second_one(
    number: str, saving: Any, tiny: Job, golden: Path
) -> None:
    """Saved beside the training, the checkpoint of the step that the signal finds the run in may come after it."""
    interrupt(tiny, {"name": "signal_in_save", "number": number, "step": 6}, words=saving)
    if saving:
        assert good_steps(tiny.path("run"))[:2] == [3, 6]
        tiny.resume("run", *saving)
        assert_equal_runs(tiny.path("run"), golden)
        return
    assert [one.step for one in scan_checkpoints(tiny.path("run") / "checkpoints")] == [3, 6]
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_while_evaluating_leaves_the_evaluation_for_the_resumed_run(number: str, tiny: Job) -> None:
    words = (*evaluating(tiny), "--max_steps", 14)
    tiny.run("golden", *words)
    interrupt(tiny, {"name": "signal_in_evaluation", "number": number, "evaluation": 2}, words=words)
    run = tiny.path("run")
    assert state(run)["step"] == 8
    assert [record["step"] for record in records(run) if record["kind"] == "eval"] == [4]
    tiny.resume("run", *words)
    assert_equal_runs(run, tiny.path("golden"), 14)


def evaluating(tiny: Job) -> tuple[Any, ...]:
    return ("--eval_dataset_name", tiny.held_out, "--eval_steps", 4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_run_at_once(number: signal.Signals, tiny: Job, golden: Path) -> None:
    fault = {"name": "signal_in_step", "number": number.name, "step": 5, "times": 2}
    ended = tiny.run("run", expect=128 + number, faults=(fault,))
    assert ended.err.splitlines()[-1] == f"burnish: {number.name} again; stopping at once"
    assert scan_checkpoints(tiny.path("run") / "checkpoints")[-1].step == 3
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["save", "save beside training", "evaluation"])
def test_a_second_signal_while_saving_or_evaluating_ends_the_run_with_nothing_half_committed(
    where: str, number: signal.Signals, tiny: Job, golden: Path
) -> None:
    place = {"evaluation": 2} if where == "evaluation" else {"step": 6}
    words = ("--async_save",) if "beside" in where else evaluating(tiny) if where == "evaluation" else ()
    fault = {"name": f"signal_in_{where.split()[0]}", "number": number.name, "times": 2, **place}
    ended = tiny.run("run", *words, expect=128 + number, faults=(fault,))
    run = tiny.path("run")
    assert ended.err.splitlines()[-1] == f"burnish: {number.name} again; stopping at once"
    steps = good_steps(run)
    assert steps[-1] in (3, 6)
    assert state(run)["status"] == "running"
    resumed = tiny.resume("run", *words)
    assert f"resumed after step {steps[-1]} of" in resumed.err
    assert temporaries(run) == []
    if where != "evaluation":
        assert_equal_runs(run, golden)


def test_the_time_limit_stops_like_a_signal(tiny: Job, golden: Path) -> None:
    ended = interrupt(tiny, {"name": "slow_steps", "seconds": 0.3}, words=("--max_time", "4s"))
    assert "--max_time 4s is near" in ended.err
    assert 0 < state(tiny.path("run"))["step"] < 32
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)
