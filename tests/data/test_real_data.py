"""Real files, clean and dirty, are recognised and counted as somebody counted them by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Prepare = Callable[..., Any]

PAIR_FILES = {
    "gsm8k/pairs-test.jsonl": (330, "preference", {}),
    "llamafactory/dpo_zh_demo.json": (300, "ShareGPT preference", {}),
    "llmbar/Adversarial_Neighbor.json": (134, "LLMBar", {}),
    "llmbar/Processed_LLMEval2.json": (200, "LLMBar", {"empty_completion": 1, "identical_pair": 1}),
    "persona/persona_agreeableness.jsonl": (1000, "persona question", {}),
}
DROPS = ("empty_completion", "identical_pair", "tie", "bad_row")


@pytest.mark.parametrize("name", PAIR_FILES)
def test_pairs_of_a_real_file_are_recognised(name: str, shared_dir: Path, prepare: Prepare) -> None:
    rows, form, drops = PAIR_FILES[name]
    prepared = prepare(shared_dir / "data" / name, max_length=None)
    assert prepared.report.forms == {form: rows}
    assert {kind: prepared.report.counts[kind] for kind in DROPS if prepared.report.counts[kind]} == drops
    assert len(prepared.groups) == rows - sum(drops.values())


def test_dirty_rows_are_told_from_ties_and_empty_answers(shared_dir: Path, prepare: Prepare, tmp_path: Path) -> None:
    path = shared_dir / "data/pandalm/testset-v1.json"
    rows = json.loads(path.read_text("utf-8"))
    report = prepare(path, on_bad_row="skip", max_length=None).report
    assert report.rows_read == len(rows) == 999
    assert report.counts["bad_row"] == 6
    rejected = [json.loads(line) for line in (tmp_path / "rejected_rows.jsonl").read_text().splitlines()]
    booleans = [
        n for n, row in enumerate(rows, 1) if isinstance(row["response1"], bool) or isinstance(row["response2"], bool)
    ]
    assert [entry["row"] for entry in rejected] == booleans
    assert all("is a boolean" in entry["reason"] for entry in rejected)
    assert report.groups_used == 999 - 6 - report.rows_dropped
    lines = path.read_text("utf-8").splitlines()
    file, line = rejected[0]["source"], int(report.places["bad_row"][0].rsplit(":", 1)[1])
    assert file == str(path)
    assert lines[line - 1].strip() == "{"
    assert lines[line].strip() == f'"idx": {rows[booleans[0] - 1]["idx"]},'


@pytest.mark.parametrize(
    ("name", "kind", "groups"),
    [
        ("llamafactory/kto_en_demo.json", "unpaired", 300),
        ("llamafactory/alpaca_zh_demo.json", "sft", 1000),
        ("gsm8k/pairs-test.jsonl", "unpaired", 660),
        ("gsm8k/pairs-test.jsonl", "ranking", 330),
    ],
)
def test_other_kinds_are_prepared_too(name: str, kind: str, groups: int, shared_dir: Path, prepare: Prepare) -> None:
    prepared = prepare(shared_dir / "data" / name, kind=kind, max_length=None)
    assert len(prepared.groups) + prepared.report.rows_dropped == groups
    assert prepared.report.rows_dropped <= 2
    assert prepared.groups.max_completions == (2 if kind == "ranking" else 1)
    assert all((group.label is not None) == (kind == "unpaired") for group in prepared.groups)
