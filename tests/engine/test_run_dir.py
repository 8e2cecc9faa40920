"""One run per folder, nothing overwritten without being asked, nothing left by a run that was refused."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from burnish.engine.metrics_file import read_metrics
from burnish.engine.run_dir import RunDir
from burnish.errors import ConfigError, IntegrityError, LockedError

HOLD = """
import os, sys, time
from burnish.engine.run_dir import RunDir
run = RunDir.create(sys.argv[1], resume="auto")
run.write_state("running", 4)
if sys.argv[2] == "fork":
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.write(tell, b"!")
        time.sleep(60)
    os.read(ready, 1)
print(os.getpid(), flush=True)
time.sleep(60)
"""

TRY = """
import os, sys
from burnish.engine.run_dir import RunDir
if os.getuid() == 0:
    os.setuid(65534)
try:
    RunDir.create(sys.argv[1])
except ValueError as error:
    print(error)
"""


@pytest.fixture
def run(tmp_path):
    run_dir = RunDir.create(tmp_path / "run")
    yield run_dir
    run_dir.release()


@pytest.fixture
def other_process(tmp_path):
    """Starts a process that holds a folder; kills its process group at the end."""
    started = []

    def start(folder: Path, kind: str = "plain") -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), kind], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def finish(folder: Path) -> None:
    """Leave what a finished run leaves."""
    run_dir = RunDir.create(folder)
    run_dir.write_settings({"seed": 1})
    run_dir.data_report.write_text("{}")
    run_dir.append_metrics({"step": 1, "kind": "train", "loss": 0.5})
    (run_dir.checkpoints_dir / "step-1").mkdir(parents=True)
    run_dir.model_dir.mkdir()
    run_dir.write_state("done", 1, 0)
    run_dir.release()


def test_the_state_says_where_the_run_stands(run):
    run.write_state("preempted", 7, 75)
    state = json.loads((run.path / "state.json").read_text())
    assert (state["status"], state["step"], state["exit_code"], state["pid"]) == ("preempted", 7, 75, os.getpid())


def test_settings_come_back_from_yaml_as_they_were(run, tmp_path):
    settings = {
        "lr": 5e-7,
        "名": "二",
        "path": tmp_path,
        "none": None,
        "list": (1, 2),
        "nested": {"on": True, "1": "no"},
    }
    run.write_settings(settings)
    loaded = yaml.safe_load((run.path / "run.yaml").read_text())
    assert loaded == settings | {"path": str(tmp_path), "list": [1, 2]}
    assert list(loaded) == list(settings)


def test_records_are_strict_json_with_all_digits_and_no_hidden_nan(run):
    record = {
        "step": 3,
        "kind": "train",
        "loss": float("nan"),
        "max": float("inf"),
        "third": 1 / 3,
        "text": "句\u2028\n",
    }
    run.append_metrics(record)
    (line,) = run.metrics.path.read_bytes().splitlines()

    def refuse(name):
        raise AssertionError(name)

    parsed = json.loads(line, parse_constant=refuse)
    assert (parsed["loss"], parsed["max"], parsed["third"]) == ("NaN", "Infinity", 1 / 3)
    (back,) = read_metrics(run.metrics.path)
    assert repr(back) == repr(record)
    with pytest.raises(TypeError, match=r"value\.bad"):
        run.append_metrics({"bad": object()})


def write_steps(run: RunDir, *steps: int) -> int:
    for step in steps:
        run.append_metrics({"step": step, "kind": "train", "loss": 1.0})
    return run.metrics.size()


def steps_of(run: RunDir) -> list[int]:
    return [record["step"] for record in read_metrics(run.metrics.path)]


def test_records_after_the_checkpoint_are_cut_by_its_offset(run):
    offset = write_steps(run, 1, 2, 3)
    write_steps(run, 3, 4)
    with run.metrics.path.open("ab") as file:
        file.write(b'{"step": 5, "ki')
    run.cut_metrics(3, offset=offset)
    write_steps(run, 9)
    assert steps_of(run) == [1, 2, 3, 9]


@pytest.mark.parametrize("offset", [None, 7, 10_000])
def test_records_are_cut_by_step_where_the_offset_does_not_fit(offset, run, capsys):
    write_steps(run, 1, 2, 3, 4)
    run.cut_metrics(2, offset=offset)
    assert steps_of(run) == [1, 2]
    assert ("cut by step" in capsys.readouterr().err) == (offset is not None)


def test_a_torn_or_damaged_line_is_cut_with_all_that_follows(run):
    write_steps(run, 1, 2)
    with run.metrics.path.open("ab") as file:
        file.write(b'\x00\x00{"step"\n{"step": 2}\n{"step": 2')
    run.cut_metrics(2)
    assert steps_of(run) == [1, 2]
    run.cut_metrics(0)
    assert steps_of(run) == []


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path, other_process):
    pid = other_process(tmp_path / "run")
    options: dict[str, Any]
    for options in ({}, {"overwrite": True}, {"resume": "auto"}):
        with pytest.raises(LockedError, match=f"pid {pid} on ") as caught:
            RunDir.create(tmp_path / "run", **options)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["plain", "fork"])
def test_the_lock_of_a_killed_run_is_taken_over(kind, tmp_path, other_process, capsys):
    """Even where a forked worker of the killed run still lives."""
    pid = other_process(tmp_path / "run", kind)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run_dir = RunDir.create(tmp_path / "run", resume="auto")
    assert str(pid) in capsys.readouterr().err
    run_dir.release()
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_released_folder_can_be_taken_by_the_next_run(tmp_path, capsys):
    for _ in range(3):
        RunDir.create(tmp_path / "run", resume="auto").release()
    assert capsys.readouterr().err == ""


def test_a_lock_on_a_file_that_its_owner_has_removed_is_no_lock(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text("")
    real, calls = fcntl.flock, []

    def owner_releases_first(descriptor, kind):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(kind)
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", owner_releases_first)
    run_dir = RunDir.create(tmp_path)
    assert len(calls) == 2
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    run_dir.release()


def test_an_earlier_run_is_not_touched_without_being_asked(tmp_path):
    finish(tmp_path / "run")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(LockedError, match="--resume_from_checkpoint auto") as caught:
        RunDir.create(tmp_path / "run")
    assert "--overwrite" in str(caught.value)
    assert "--output_dir" in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before


def test_overwriting_removes_the_earlier_run_when_the_new_one_begins(tmp_path):
    folder = tmp_path / "run"
    finish(folder)
    (folder / "my notes.txt").write_text("mine")
    run_dir = RunDir.create(folder, overwrite=True)
    assert (folder / "model").exists()
    run_dir.data_report.write_text("new")
    run_dir.write_state("running", 0)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "data_report.json", "my notes.txt", "state.json"]
    assert json.loads((folder / "state.json").read_text())["status"] == "running"
    run_dir.append_metrics({"step": 1})
    assert steps_of(run_dir) == [1]
    run_dir.release()


def test_a_run_that_is_refused_later_has_overwritten_nothing(tmp_path):
    finish(tmp_path / "run")
    RunDir.create(tmp_path / "run", overwrite=True).discard_if_empty()
    assert {"model", "checkpoints", "metrics.jsonl", "run.yaml"} <= {p.name for p in (tmp_path / "run").iterdir()}


def test_overwriting_and_resuming_contradict_each_other(tmp_path):
    finish(tmp_path / "run")
    with pytest.raises(ConfigError, match="--overwrite"):
        RunDir.create(tmp_path / "run", overwrite=True, resume="auto")
    RunDir.create(tmp_path / "run", resume=str(tmp_path / "run" / "checkpoints" / "step-1")).release()
    with pytest.raises(LockedError):
        RunDir.create(tmp_path / "run", resume=str(tmp_path / "elsewhere"))


def test_files_that_no_run_wrote_are_never_overwritten(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("years of work")
    with pytest.raises(LockedError, match="no run wrote"):
        RunDir.create(tmp_path, overwrite=True)
    assert (tmp_path / "model" / "weights").exists()


def test_an_output_that_is_a_file_is_refused_with_its_path(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=str(path)):
            RunDir.create(path)
    assert (tmp_path / "file").read_text() == "x"


def test_an_output_that_cannot_be_written_is_refused_with_its_path():
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        folder = Path(base, "fixed")
        folder.mkdir(mode=0o555)
        for path in (folder, folder / "below"):
            done = subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, text=True, check=False)
            assert f"{path} cannot be written: Permission denied" in done.stdout, done.stderr


def test_a_run_that_fails_before_its_first_step_leaves_nothing(tmp_path):
    run_dir = RunDir.create(tmp_path / "a" / "b" / "run")
    run_dir.write_settings({"seed": 1})
    run_dir.write_state("failed", 0, 2)
    run_dir.data_report.write_text("{}")
    run_dir.discard_if_empty()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays_and_so_do_others_files(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run_dir = RunDir.create(tmp_path / "run")
    run_dir.write_state("failed", 0, 2)
    run_dir.discard_if_empty()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_run_that_has_records_is_never_discarded(run):
    write_steps(run, 1)
    run.write_state("failed", 1, 3)
    run.discard_if_empty()
    assert sorted(path.name for path in run.path.iterdir()) == ["metrics.jsonl", "state.json"]


def test_a_folder_that_vanishes_is_an_integrity_error(run):
    (run.path / ".lock").unlink()
    run.path.rmdir()
    for write in (lambda: run.write_state("running", 1), lambda: run.append_metrics({"step": 1})):
        with pytest.raises(IntegrityError, match=str(run.path)):
            write()


def test_run_directories_need_no_torch():
    code = "import sys, burnish.engine.checkpoint; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
