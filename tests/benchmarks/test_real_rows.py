"""Rows made of real data sets are burnish's rows, and runs are read and drawn from what they left."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import plot_runs
import real_rows

PERSONA = [
    {"question": f"Would you say {n}?", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
    for n in range(200)
]
LLMBAR = [{"input": "Add 1 and 1.", "output_1": "3", "output_2": "2", "label": 2}]
SOLUTIONS = [
    {
        "question": "1 + 1?",
        "ground_truth": "A: 2",
        "6b_finetuning": {"is_correct": False, "solution": "A: 3"},
        "175b_finetuning": {"is_correct": True, "solution": "A: 2"},
    }
]


def _made(
    form: str, source: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[dict[str, Any]]]:
    lines = source.suffix == ".jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows, indent=1))
    out = source.with_name("made")
    monkeypatch.setattr(sys, "argv", ["real_rows.py", form, str(source), "--out", str(out)])
    real_rows.main()
    files = {split: source.with_name(f"made-{split}.jsonl") for split in ("train", "test")}
    return {split: [json.loads(line) for line in file.read_text().splitlines()] for split, file in files.items()}


def test_no_prompt_is_both_trained_and_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _made("persona", tmp_path / "rows.jsonl", PERSONA + PERSONA, monkeypatch)
    train, test = ({row["prompt"][0]["content"] for row in made[split]} for split in ("train", "test"))
    assert len(train | test) == 200
    assert not train & test
    assert 20 <= len(test) <= 60
    assert all((row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Yes", "No") for row in made["train"])


def test_the_labelled_output_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _made("llmbar", tmp_path / "rows.json", LLMBAR, monkeypatch)
    (row,) = made["train"] + made["test"]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("2", "3")


def test_graded_solutions_become_a_scored_list_where_right_and_wrong_ones_are_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = {**SOLUTIONS[0], "6b_finetuning": {"is_correct": True, "solution": "2"}}
    made = _made("lists", tmp_path / "rows.jsonl", [*SOLUTIONS, alike], monkeypatch)
    (row,) = made["train"] + made["test"]
    assert [completion[0]["content"] for completion in row["completions"]] == ["A: 3", "A: 2"]
    assert row["scores"] == [0.0, 1.0]


def test_graded_solutions_become_labelled_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _made("solutions", tmp_path / "rows.jsonl", SOLUTIONS, monkeypatch)
    rows = made["train"] + made["test"]
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("A: 3", False), ("A: 2", True)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    records = [
        {"step": 0, "kind": "eval", "eval_loss": 0.7},
        {"step": 1, "kind": "train", "loss": 0.6},
        {"step": 2, "kind": "train", "loss": 0.5},
        {"step": 2, "kind": "eval", "eval_loss": 0.55, "eval_margin": 1.0},
        {"step": 2, "kind": "summary", "train_loss": 0.55},
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path / "run"


def test_a_runs_table_has_a_row_for_each_evaluation(run: Path) -> None:
    records = plot_runs.read_records(run)
    assert plot_runs.series(records, "train", "loss") == ([1, 2], [0.6, 0.5])
    lines = plot_runs.table("run", records, ["loss", "margin"]).splitlines()
    assert lines[2:] == [
        "| step | `eval_loss` | `eval_margin` |",
        "|---|---|---|",
        "| 0 | 0.700 |  |",
        "| 2 | 0.550 | 1.000 |",
    ]


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="a plot needs matplotlib")
def test_a_plot_is_written(run: Path) -> None:
    plot_runs.plot({"run": plot_runs.read_records(run)}, ["loss", "margin"], run / "plot.png")
    assert (run / "plot.png").read_bytes().startswith(b"\x89PNG")
