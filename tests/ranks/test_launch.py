"""`burnish launch`: ranks are started together, end together, and the cause and its exit code come through."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from burnish.cli.launch import read_placement, run
from burnish.device import processes
from burnish.device.processes import Placement, free_port, run_processes, run_restarting
from burnish.errors import ConfigError
from jobs import job, movement_ratio, write_pairs
from launching import TESTS
from runs import read_metrics, run_burnish, spawn_burnish

LAUNCH = ["launch", "--num_processes", "2"]


def start(*words: Any, ranks: int = 2, restarts: int = 0, **environment: str) -> subprocess.Popen[str]:
    launch = ["launch", "--num_processes", str(ranks), "--max_restarts", str(restarts)]
    command = [sys.executable, "-m", "burnish", *launch, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def children(pid: int) -> list[int]:
    """Ranks in their order."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def wait_for_step(run: Path, step: int) -> None:
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_text().count("\n") >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run does not get going")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--num_processes is missing"),
        (["--num_processes", "0"], "at least 1"),
        (["--num_processes", "3", "--num_machines", "2", "--main_process_ip", "h"], "multiple of 2"),
        (["--num_processes", "2", "--num_machines", "2"], "needs --main_process_ip"),
        (["--num_processes", "2", "--machine_rank", "1"], "the last is 0"),
        (["--num_process", "2"], "did you mean --num_processes"),
        (["--num_processes"], "needs a value"),
        (["--num_processes=2", "--main_process_port", "99999"], "from 1 to 65535"),
        (["--num_processes=2", "--max_restarts", "-1"], "at least 0"),
        (["--beta", "2"], "after the method's name"),
    ],
)
def test_wrong_launch_settings_are_told_by_name(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        read_placement(words)


def test_the_second_of_two_machines_has_the_second_half_of_the_ranks() -> None:
    words = ["--num-processes=4", "--num_machines", "2", "--machine_rank", "1", "--main_process_ip", "node0"]
    placement = read_placement(words)
    assert placement == Placement(4, 2, 1, "node0", 29500)
    told = placement.environments()
    assert [one["RANK"] for one in told] == ["2", "3"]
    assert [one["LOCAL_RANK"] for one in told] == ["0", "1"]
    assert {(one["WORLD_SIZE"], one["LOCAL_WORLD_SIZE"], one["MASTER_PORT"]) for one in told} == {("4", "2", "29500")}


@pytest.mark.parametrize("words", [["dpo", "--lerning_rate", "1"], ["--nproc", "2", "dpo"], []])
def test_a_wrong_flag_is_told_once_and_starts_nothing(words: list[str]) -> None:
    done = spawn_burnish(*LAUNCH, *words)
    assert done.returncode == 2
    assert done.stderr.count("burnish: ") == 1


@pytest.mark.parametrize("code", [2, 3, 4, 75, 134])
def test_the_exit_code_of_the_first_that_fails_comes_through(code: int) -> None:
    one_fails = f"import os, sys, time; sys.exit({code}) if os.environ['RANK'] == '1' else time.sleep(0.5)"
    assert run_processes([sys.executable, "-c", one_fails], Placement(2)) == code


@pytest.mark.parametrize(("code", "starts"), [(1, 3), (137, 3), (134, 3), (0, 1), (2, 1), (3, 1), (4, 1), (75, 1)])
def test_only_a_rank_that_died_has_the_run_started_again(code: int, starts: int, tmp_path: Path) -> None:
    note = "import os, sys; open(sys.argv[1] + '/' + str(os.getpid()), 'w').write(sys.argv[2]);"
    ends = f"{note} os._exit({code} if os.environ['RANK'] == '1' else 0)"
    words = [sys.executable, "-c", ends, str(tmp_path)]
    assert run_restarting([*words, "first"], [*words, "again"], Placement(2), max_restarts=2) == code
    told = Counter(path.read_text() for path in tmp_path.iterdir())
    assert told == Counter({"first": 2, "again": 2 * (starts - 1)})


def test_a_launcher_that_was_asked_to_stop_starts_nothing_again(tmp_path: Path) -> None:
    note = f"import os, time; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w'); time.sleep(100)"

    def ask() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    code = run_restarting([sys.executable, "-c", note], [sys.executable, "-c", note], Placement(2), max_restarts=5)
    assert code == 128 + signal.SIGTERM
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dpo"], "needs --output_dir"),
        (["score", "model", "rows", "scored.jsonl"], "leave it out"),
        (["dpo", "--output_dir", "a", "--overwrite"], "--overwrite asks for another start"),
        (["dpo", "--output_dir", "a", "--resume_from_checkpoint", "b"], "--resume_from_checkpoint b asks"),
        (["--num_machines", "2", "--main_process_ip", "h", "dpo", "--output_dir", "a"], "torchrun --max-restarts"),
    ],
)
def test_restarts_that_would_take_another_run_for_their_own_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        run(["--num_processes", "2", "--max_restarts", "1", *words])


def test_ranks_that_hang_are_killed_well_within_30_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.QUIET_SECONDS + processes.TERM_SECONDS < 20
    monkeypatch.setattr(processes, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(processes, "TERM_SECONDS", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
    program = f"import os, sys, time; (time.sleep(0.5), sys.exit(4)) if os.environ['RANK'] == '0' else exec({deaf!r})"
    began = time.monotonic()
    assert run_processes([sys.executable, "-c", program], Placement(2)) == 4
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_two_ranks_of_a_launch_equal_one(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=15)
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 2))
    done = spawn_burnish(*LAUNCH, *job(data, tmp_path / "two", "--max_steps", 2))
    assert done.returncode == 0, done.stderr
    losses = [[record["loss"] for record in read_metrics(tmp_path / run)[:2]] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert done.stderr.count("model:") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "parallel"), [(2, "ddp"), (2, "fsdp"), (4, "ddp")])
def test_kill_9_of_a_rank_ends_the_launch_and_names_the_rank_first(ranks: int, parallel: str, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=24)
    launch = start(*job(data, tmp_path / "run", "--max_steps", 100000, "--parallel", parallel), ranks=ranks)
    wait_for_step(tmp_path / "run", 3)
    os.kill(children(launch.pid)[ranks - 1], signal.SIGKILL)
    began = time.monotonic()
    _, errors = launch.communicate(timeout=30)
    assert time.monotonic() - began < 30
    assert launch.returncode == 128 + signal.SIGKILL
    told = [line for line in errors.splitlines() if line.startswith("burnish: ")]
    assert told[0].startswith(f"burnish: rank {ranks - 1} was ended by SIGKILL"), errors
    assert "lost another rank" not in errors


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_goes_on_from_the_newest_checkpoint(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=24)
    saving = ["--save_strategy", "steps", "--save_steps", 2]
    words = job(data, tmp_path / "run", "--max_steps", 40, *saving)
    launch = start(*words, restarts=1)
    wait_for_step(tmp_path / "run", 5)
    os.kill(children(launch.pid)[1], signal.SIGKILL)
    _, errors = launch.communicate(timeout=300)
    assert launch.returncode == 0, errors
    assert "burnish: the run ended with exit code 137; starting it again (restart 1 of 1)" in errors
    assert errors.count("resumed after step ") == 1
    assert "resumed after step 0 " not in errors
    steps = [record["step"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert steps == list(range(1, 41))
    run_burnish(*job(data, tmp_path / "whole", "--max_steps", 40))
    assert movement_ratio(tmp_path / "whole", tmp_path / "run") < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "parallel"), [(2, "ddp"), (4, "fsdp")])
def test_an_exception_on_one_rank_is_the_first_error_and_the_last_word(
    ranks: int, parallel: str, tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=24)
    worker = [sys.executable, str(TESTS / "ranks" / "failing_rank.py"), "1", "3"]
    words = [str(word) for word in job(data, tmp_path / "run", "--max_steps", 100000, "--parallel", parallel)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = (
        f"import sys; from burnish.device.processes import *; sys.exit(run_processes(sys.argv[1:], Placement({ranks})))"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *worker, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line.startswith("burnish: ")]
    assert told == ["burnish: rank 1: unexpected ValueError: rank 1 breaks on purpose"]
    assert time.monotonic() - began < 60
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_one_checkpoint_and_exits_with_75(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=24)
    words = job(data, tmp_path / "run", "--max_steps", 100000, "--save_strategy", "steps", "--save_steps", 100000)
    launch = start(*words)
    wait_for_step(tmp_path / "run", 3)
    launch.terminate()
    _, errors = launch.communicate(timeout=60)
    assert launch.returncode == 75, errors
    assert errors.count("--resume_from_checkpoint auto goes on exactly there") == 1
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "preempted"
    checkpoints = list((tmp_path / "run" / "checkpoints").iterdir())
    assert len(checkpoints) == 1
    assert (checkpoints[0] / "MANIFEST.json").exists()


@pytest.mark.slow
def test_two_machines_on_loopback_equal_one_process(tmp_path: Path) -> None:
    """Two launchers, each with its own cache and its own preparation, meet at one port."""
    data = write_pairs(tmp_path / "pairs.jsonl", count=15)
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 2))
    common = ["launch", "--num_processes", 2, "--num_machines", 2, "--main_process_ip", "127.0.0.1"]
    common += ["--main_process_port", free_port()]
    launches = [
        subprocess.Popen(
            [sys.executable, "-m", "burnish", *map(str, [*common, "--machine_rank", machine])]
            + [str(word) for word in job(data, tmp_path / "two", "--max_steps", 2)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "BURNISH_CACHE": str(tmp_path / f"cache-{machine}")},
        )
        for machine in (0, 1)
    ]
    for launch in launches:
        _, errors = launch.communicate(timeout=120)
        assert launch.returncode == 0, errors
    losses = [[record["loss"] for record in read_metrics(tmp_path / run)[:2]] for run in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert all((tmp_path / f"cache-{machine}").is_dir() for machine in (0, 1))
