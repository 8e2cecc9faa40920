"""`--profile N` leaves a trace of N steps that other programs can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import job, write_pairs
from runs import run_burnish


def test_a_trace_of_the_asked_steps_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=16)
    words = ("--max_steps", 6, "--profile", 2, "--global_batch_size", 4, "--device", "cpu")
    run_burnish(*job(data, tmp_path / "run", *words))
    trace = tmp_path / "run" / "profile" / "trace.json"
    assert f"profile: 2 steps in {trace}" in capsys.readouterr().err
    names = [event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]]
    steps = {name for name in names if name.startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#2", "ProfilerStep#3"}
    assert "aten::mm" in names  # the gradient of every projection, whatever kernel computes it forward
    assert "aten::mm" in (trace.parent / "operators.txt").read_text()


def test_a_run_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--profile", 3, "--device", "cpu"))
    assert "--profile: no trace, for the run had 1 steps" in capsys.readouterr().err
