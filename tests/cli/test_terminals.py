"""Readers that go away, small terminals, old locales and Ctrl-C: no traceback, and no run that dies of its audience."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import job, write_pairs
from row_builders import pair
from runs import read_metrics, spawn_burnish

CHATML = Path(__file__).parents[1] / "golden" / "trl_ids" / "chatml"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Conversations with words in several scripts."""
    path = tmp_path / "rows.jsonl"
    lines = [pair(f"你好 {n} 🙂 é" * 20, "a" * n, "b") for n in range(2, 400)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


def _open(*words: Any, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "burnish", *map(str, words)],
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 (no thread of this process is running)
    )


def _heed_interrupts() -> None:
    """As from a terminal: a shell lets what it starts in the background ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run_without_reader(*words: Any, stream: str = "stdout") -> tuple[int, str]:
    """Run with one of the two streams a pipe that nobody reads; the exit code, and the other stream's text."""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    with _open(*words, **streams) as process:
        os.close(writing)
        out, error = process.communicate(timeout=100)
    return process.returncode, (out or error or b"").decode()


@pytest.mark.parametrize("words", [["check", "{rows}"], ["check", "{rows}", "--json", "-"], ["dpo", "--help-all"]])
def test_a_reader_that_goes_away_ends_a_printing_command_quietly(words: list[str], rows: Path) -> None:
    code, error = _run_without_reader(*(word.format(rows=rows) for word in words))
    assert (code, error) == (0, "")


def test_a_reader_that_goes_away_does_not_end_a_run(tmp_path: Path) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--num_train_epochs", 2)
    code, error = _run_without_reader(*words)
    assert code == 0
    assert error.count("standard output was closed") == 1
    steps = [record["step"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "done"


def test_a_run_whose_messages_nobody_reads_finishes(tmp_path: Path) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--max_steps", 1)
    code, _ = _run_without_reader(*words, stream="stderr")
    assert code == 0


def test_a_small_terminal_still_gets_a_table(rows: Path) -> None:
    done = spawn_burnish("check", rows, COLUMNS="20")
    assert done.returncode == 0
    assert any(
        line.startswith("characters ") and line.rstrip().endswith("longest") for line in done.stdout.splitlines()
    )


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1"])
def test_old_encodings_end_no_command(encoding: str, rows: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "burnish", "explain", str(rows), "--row", "2", "--model_name_or_path", str(CHATML)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


def _wait_until_read(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Return once the process has read the file: how long imports take depends on what else the machine does."""
    counts = Path(f"/proc/{process.pid}/io")
    while process.poll() is None and _bytes_read(counts.read_text()) < path.stat().st_size:
        time.sleep(0.02)


def _bytes_read(counts: str) -> int:
    return int(counts.split("rchar:")[1].split()[0])


def test_ctrl_c_in_an_audit_is_one_line_and_130(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(pair("word " * 200)) + "\n") * 100_000)
    process = _open("check", path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_until_read(path, process)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=100)
    assert process.returncode == 130
    assert error == b"burnish: interrupted\n"
    assert out == b""
