"""A run killed at any moment goes on from its newest committed checkpoint, and ends as the uninterrupted run."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest

from faults.harness import TIMES, Ended, Job, assert_equal_runs, good_steps, state, temporaries

KILLED = -9
KILLS = 8
"""Kills of each chain; four chains, of which half strike inside a save."""


def moment(kind: str, seed: int) -> list[dict[str, Any]]:
    """Faults of one run; by the clock, its steps are so slow that no machine gets to the end before the fifth kill."""
    if kind == "save":
        return [{"name": "kill_in_save", "seed": seed}]
    seconds = random.Random(seed).uniform(0.0, 0.35)
    return [{"name": "kill_after", "seconds": seconds}, {"name": "slow_steps", "seconds": 0.05}]


@pytest.mark.parametrize("kind", ["save", "any"])
@pytest.mark.parametrize("saving", [(), ("--async_save",)], ids=["in the loop", "beside it"])
def test_a_run_killed_again_and_again_ends_equal(saving: tuple[str, ...], kind: str, tiny: Job, golden: Path) -> None:
    run, steps = tiny.path("run"), [0]
    for kill in range(KILLS):
        ended = tiny.server.start(tiny.resume_words("run", *saving), *moment(kind, 100 * len(saving) + kill)).wait()
        assert "Traceback" not in ended.err, ended.err
        if ended.code == 0:
            break
        assert ended.code == KILLED, ended.err
        newest = max(good_steps(run), default=0)
        assert newest >= steps[-1]
        steps.append(newest)
    assert len(steps) > 4
    ended = tiny.resume("run", *saving)
    assert steps[-1] == 0 or f"resumed after step {steps[-1]} of" in ended.err
    assert_equal_runs(run, golden)
    assert state(run)["status"] == "done"
    assert temporaries(run) == []


@pytest.mark.parametrize("step", [1, 2, 5, 15, 16, 17, 31])
def test_a_run_resumes_equal_from_any_step(step: int, tiny: Job, golden: Path) -> None:
    ended = tiny.run("run", "--save_steps", 1, expect=KILLED, faults=({"name": "kill_at_step", "step": step + 1},))
    assert "Traceback" not in ended.err
    assert max(good_steps(tiny.path("run"))) == step
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)


LORA = ("--use_peft", "--lora_r", 4, "--lora_dropout", 0.1)


@pytest.fixture(scope="module")
def golden_lora(fault_server: Any, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from faults.conftest import make_job

    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("lora"))
    job.run("golden", *LORA)
    return job.path("golden")


@pytest.mark.parametrize("step", [1, 5, 16, 21])
def test_an_adapter_resumes_equal_with_dropout_on(step: int, tiny: Job, golden_lora: Path) -> None:
    fault = {"name": "kill_at_step", "step": step + 1}
    tiny.run("run", *LORA, "--save_steps", 1, expect=KILLED, faults=(fault,))
    tiny.resume("run", *LORA)
    assert_equal_runs(tiny.path("run"), golden_lora)


def test_a_chain_of_resumes_ends_equal(tiny: Job, golden: Path) -> None:
    """Stopped in the first epoch, at its end, and in the second; each stop commits a checkpoint of its own step."""
    for step in (5, 16, 21):
        tiny.resume("run", expect=75, faults=({"name": "signal_in_step", "number": "SIGTERM", "step": step},))
    tiny.resume("run")
    assert_equal_runs(tiny.path("run"), golden)
    assert [one["step"] for one in state(tiny.path("run"))["resumptions"]] == [5, 16, 21]


def test_the_lines_of_a_stopped_and_resumed_run_are_those_of_one_that_never_stopped(tiny: Job) -> None:
    def lines(ended: Ended) -> list[dict[str, Any]]:
        records = [ast.literal_eval(line) for line in ended.out.splitlines() if line.startswith("{")]
        return [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in records]

    whole = lines(tiny.run("whole"))
    stop = {"name": "signal_in_step", "number": "SIGTERM", "step": 11}  # in the middle of a logging interval
    stopped = lines(tiny.run("run", expect=75, faults=(stop,)))
    assert len(stopped) == 5
    assert [*stopped, *lines(tiny.resume("run"))] == whole


def test_a_run_killed_while_its_model_is_exported_exports_it_when_resumed(tiny: Job, golden: Path) -> None:
    """`done` means that the model stands in its folder."""
    tiny.run("run", expect=KILLED, faults=({"name": "kill_in_export"},))
    run = tiny.path("run")
    assert state(run)["status"] == "running"
    assert not (run / "model").exists()
    tiny.resume("run")
    assert state(run)["status"] == "done"
    assert (run / "model" / "model.safetensors").read_bytes() == (golden / "model/model.safetensors").read_bytes()
    assert temporaries(run) == []


def test_a_model_that_cannot_be_exported_is_a_failed_run(tiny: Job) -> None:
    ended = tiny.run("run", expect=3, faults=({"name": "full_disk_in_export"},))
    assert (state(tiny.path("run"))["status"], state(tiny.path("run"))["exit_code"]) == ("failed", 3)
    assert "Traceback" not in ended.err
    assert "model" in ended.err.splitlines()[-1]
    tiny.resume("run")
    assert state(tiny.path("run"))["status"] == "done"
