"""Runs that load no reference, and settings of lengths that TRL has dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import job, write_pairs
from runs import read_metrics, run_burnish


@pytest.mark.parametrize(
    "words",
    [
        ["--reference_free"],
        ["--loss_type", "simpo", "--beta", 2],
        ["--loss_type", "cpo"],
        ["--loss_type", "orpo"],
        ["--loss_type", "alphapo", "--beta", 2],
    ],
    ids=lambda words: words[-1] if len(words) < 3 else words[1],
)
def test_what_compares_with_no_reference_loads_none_and_the_plan_says_so(
    words: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("burnish.methods.session.build_reference", None)  # calling it would fail
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--dry_run", *words))
    assert "none: the objective does not use one" in capsys.readouterr().out


def test_lengths_of_the_parts_reach_the_run(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=16)
    words = ["--max_steps", 1, "--max_prompt_length", 4, "--max_completion_length", 3]
    run_burnish(*job(data, tmp_path / "run", *words))
    assert 0 < read_metrics(tmp_path / "run")[0]["num_tokens"] <= 8 * 2 * (4 + 3)
