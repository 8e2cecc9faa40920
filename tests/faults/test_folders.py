"""The output folder: junk in it, a folder that can't be written or vanishes, two runs at once, and an earlier run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs import job, model_tensors, write_pairs
from runs import read_metrics, run_burnish

SAVING = ("--save_strategy", "steps", "--save_steps", 1)
LONG = ("--num_train_epochs", 1000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few pairs."""
    return write_pairs(tmp_path / "pairs.jsonl")


@contextmanager
def _running(*words: Any) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, past its first step; killed at the end of the block."""
    output = Path(words[words.index("--output_dir") + 1])
    process = subprocess.Popen(
        [sys.executable, "-m", "burnish", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while not (output / "metrics.jsonl").exists() or not (output / "metrics.jsonl").stat().st_size:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_run_in_the_same_folder_is_refused_with_pid_and_host_and_a_killed_ones_lock_is_taken_over(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = job(data, tmp_path / "run", *SAVING)
    with _running(*words, *LONG) as first:
        before = (tmp_path / "run" / "run.yaml").read_bytes()
        for more in ([], ["--overwrite"], ["--resume_from_checkpoint", "auto"]):
            run_burnish(*words, *more, expect=2)
            error = capsys.readouterr().err
            assert f"in use by another run (pid {first.pid} on {socket.gethostname()})" in error
        assert (tmp_path / "run" / "run.yaml").read_bytes() == before
        assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (tmp_path / "run" / ".lock").exists()
        run_burnish(*words, expect=2)
        error = capsys.readouterr().err
        assert f"took over from the run with pid {first.pid}" in error
        assert "holds an earlier run" in error
        run_burnish(*words, "--overwrite", "--max_steps", 1)
    assert not (tmp_path / "run" / ".lock").exists()
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "done"


def test_a_lock_that_names_a_dead_process_or_holds_nonsense_stops_nobody(data: Path, tmp_path: Path) -> None:
    for number, text in enumerate(('{"pid": 1, "host": "elsewhere"}', "{", "", "[]", '{"pid": "x"}', "\0" * 9000)):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        (folder / ".lock").write_text(text)
        run_burnish(*job(data, folder, "--dry_run"))
        run_burnish(*job(data, folder, "--max_steps", 1))
        assert json.loads((folder / "state.json").read_text())["status"] == "done"


def test_a_lock_that_is_a_link_is_not_followed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    run_burnish(*job(data, tmp_path / "run"), expect=2)
    assert "cannot be written" in capsys.readouterr().err
    assert (tmp_path / "precious").read_text() == "precious"


def test_an_earlier_run_is_not_overwritten_unasked_and_only_its_own_files_go(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run_burnish(*job(data, run, "--max_steps", 2, *SAVING))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    run_burnish(*job(data, run, "--max_steps", 1), expect=2)
    error = capsys.readouterr().err
    assert "--overwrite" in error
    assert "--resume_from_checkpoint auto" in error
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    (run / "notes.txt").write_text("mine")
    run_burnish(*job(data, run, "--max_steps", 1, "--overwrite"))
    assert (run / "notes.txt").read_text() == "mine"
    assert not (run / "checkpoints" / "step-2").exists()
    assert [record["step"] for record in read_metrics(run) if record["kind"] == "train"] == [1]


def test_junk_in_the_output_folder_decides_nothing_and_is_left_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, junky = tmp_path / "plain", tmp_path / "junky"
    steps = ("--max_steps", 3, *SAVING)
    for run in (plain, junky):
        run_burnish(*job(data, run, *steps))
    checkpoints = junky / "checkpoints"
    shutil.rmtree(checkpoints / "step-3")
    shutil.rmtree(plain / "checkpoints" / "step-3")
    (junky / ".tmpABC").write_bytes(b"torn")
    (checkpoints / ".tmpXYZ").write_bytes(b"torn")
    for name in ("checkpoint-999", "checkpoint-foo", "step-999", "step-foo"):
        (checkpoints / name).mkdir()
    (checkpoints / "step-1000").symlink_to(tmp_path / "nowhere")
    (junky / "checkpoint-999").mkdir()
    for age, folder in enumerate(sorted(checkpoints.glob("step-[12]"), reverse=True)):
        os.utime(folder, (1_000_000_000 + age, 1_000_000_000 + age))  # the older looks newer
    capsys.readouterr()
    for run in (plain, junky):
        run_burnish(*job(data, run, *steps, "--resume_from_checkpoint", "auto"))
    error = capsys.readouterr().err
    assert error.count("warning: ") == 1
    assert "ignored: no checkpoint, or one whose saving was never finished" in error
    assert all((model_tensors(plain)[name] == tensor).all() for name, tensor in model_tensors(junky).items())
    assert (junky / ".tmpABC").exists()
    assert (junky / "checkpoint-999").exists()
    assert (checkpoints / "checkpoint-foo").exists()


@pytest.mark.parametrize("where", ["/proc/burnish", "/dev/null/run", "/sys/kernel/run"])
def test_an_output_folder_that_cannot_be_written_fails_before_anything_is_read(
    where: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    run_burnish(*job(data, Path(where), "--model_name_or_path", "./no-such-model"), expect=2)
    assert time.monotonic() - began < 1
    error = capsys.readouterr().err
    assert f"--output_dir {where}" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", ["a file", "read-only"])
def test_an_output_folder_that_is_read_only_or_a_file_is_refused(
    kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if kind == "a file":
        run.write_text("mine")
    else:
        run.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", run], check=False).returncode:
            pytest.skip("no tmpfs can be mounted here")
    try:
        run_burnish(*job(data, run, "--model_name_or_path", "./no-such-model"), expect=2)
        error = capsys.readouterr().err
        assert f"--output_dir {run} cannot be written" in error
        assert len(error.strip().splitlines()) == 1
    finally:
        if kind == "read-only":
            subprocess.run(["umount", run], check=True)
    assert not run.is_file() or run.read_text() == "mine"


def test_an_output_folder_that_vanishes_in_mid_run_ends_it_with_three(data: Path, tmp_path: Path) -> None:
    with _running(*job(data, tmp_path / "run", *LONG)) as process:
        (tmp_path / "run").rename(tmp_path / "gone")  # at once: removing it file by file races with the run's writes
        shutil.rmtree(tmp_path / "gone")
        _, error = process.communicate(timeout=60)
    assert process.returncode == 3, error
    assert str(tmp_path / "run") in error.splitlines()[-1]
    assert "Traceback" not in error


def test_an_output_folder_that_becomes_a_file_in_mid_run_ends_it_with_three(data: Path, tmp_path: Path) -> None:
    with _running(*job(data, tmp_path / "run", *LONG, *SAVING, "--save_total_limit", 1)) as process:
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").write_text("a file")
        _, error = process.communicate(timeout=60)
    assert process.returncode == 3, error
    assert "Traceback" not in error
    assert (tmp_path / "run").read_text() == "a file"


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
def test_the_names_of_a_run_lead_nowhere(name: str, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "sub" / "run"
    words = job(data, run, "--max_steps", 1, "--run_name", name, "--report_to", "tensorboard")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "sub")}
    run_burnish(*words)
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "sub")} == before
    assert {path.name for path in (tmp_path / "sub").iterdir()} == {"run"}
