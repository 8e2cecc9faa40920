"""Columns that a command does not use are refused by the name of those that do, or said; never ignored in silence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from jobs import job, stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

SOME = {"margin": 0.5, "label_smoothing": 0.1}


def _rows(path: Path, kind: str, **columns: Any) -> Path:
    """Pairs, completions with a label or without, and a column in every second row; callables get the row."""
    write = {"pairs": write_pairs, "labelled": write_completions, "completions": write_completions}[kind]
    write(path, **({"labelled": True} if kind == "labelled" else {}))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::2]:
        row |= {name: value(row) if callable(value) else value for name, value in columns.items()}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _ones(row: dict[str, Any]) -> list[float]:
    return [1.0] * len(row["rejected_ids"])


def _logps(path: Path) -> Path:
    """Pairs with log-probabilities of some reference in every row."""
    write_pairs(path, ref_chosen_logps=-40.0, ref_rejected_logps=-50.0)
    return path


@pytest.mark.parametrize("column", ["margin", "label_smoothing"])
@pytest.mark.parametrize(
    ("command", "kind"),
    [("kto", "pairs"), ("kto", "labelled"), ("sft", "completions")],
    ids=["pairs in kto", "labels in kto", "sft"],
)
def test_what_belongs_to_pairs_is_refused_where_nothing_compares_them(
    command: str, kind: str, column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _rows(tmp_path / "rows.jsonl", kind, **{column: SOME[column]})
    run_burnish(*stage_job(command, data, tmp_path / "run"), expect=2)
    expected = f"the rows' {column}: used by burnish dpo and burnish reward, and not by burnish {command}"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", ["kto", "reward"])
def test_token_weights_are_refused_where_completions_have_one_number(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _rows(tmp_path / "rows.jsonl", "pairs", rejected_token_weights=_ones)
    run_burnish(*stage_job(command, data, tmp_path / "run"), expect=2)
    told = capsys.readouterr().err
    assert "token weights (chosen_token_weights" in told
    assert f"used by burnish dpo, and not by burnish {command}" in told


def test_a_column_of_the_rows_to_evaluate_on_is_refused_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = _rows(tmp_path / "held-out.jsonl", "completions", margin=1.0)
    data = write_completions(tmp_path / "rows.jsonl")
    run_burnish(*stage_job("sft", data, tmp_path / "run", "--eval_dataset_name", held_out), expect=2)
    assert "the rows' margin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words", "why"),
    [
        ("dpo", ("--loss_type", "simpo", "--beta", 2), "no reference is compared with"),
        ("dpo", ("--reference_free",), "no reference is compared with"),
        ("reward", (), "no reference is compared with"),
        ("kto", (), "the reference scores other completions too"),
    ],
    ids=["simpo", "reference_free", "reward", "kto"],
)
def test_a_references_scores_that_nobody_asks_for_are_told_and_change_nothing(
    command: str, words: tuple[Any, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for name, data in (("given", _logps(tmp_path / "given.jsonl")), ("plain", write_pairs(tmp_path / "plain.jsonl"))):
        run_burnish(*stage_job(command, data, tmp_path / name, "--max_steps", 2, *words))
        line = f"the rows' ref_chosen_logps and ref_rejected_logps are not used: {why}"
        assert (line in capsys.readouterr().err) == (name == "given")
        losses.append([record["loss"] for record in read_metrics(tmp_path / name) if record["kind"] == "train"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("loss_type", ["bco", "apo_zero_unpaired"])
def test_labelled_completions_of_pairs_take_the_references_scores_from_the_rows(
    loss_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burnish.methods.session.build_reference", None)
    words = ["--loss_type", loss_type, "--max_steps", 1, "--learning_rate", 0, "--beta", 0.1]
    run_burnish(*stage_job("kto", _logps(tmp_path / "rows.jsonl"), tmp_path / "run", *words))
    record = read_metrics(tmp_path / "run")[0]
    for side, logps in (("chosen", -40.0), ("rejected", -50.0)):
        assert record[f"rewards/{side}"] == pytest.approx(0.1 * (record[f"logps/{side}"] - logps), rel=1e-5)


def test_what_every_stage_honours_trains(tmp_path: Path) -> None:
    for command, kind in (("kto", "pairs"), ("sft", "completions"), ("reward", "pairs"), ("dpo", "pairs")):
        runs = []
        for weight in (1.0, 2.0, 4.0):
            data = _rows(tmp_path / f"{command}-{weight}.jsonl", kind, weight=weight)
            words = ["--max_steps", 1, "--learning_rate", 0]
            run_burnish(*stage_job(command, data, tmp_path / f"{command}-{weight}", *words))
            runs.append(read_metrics(tmp_path / f"{command}-{weight}")[0]["loss"])
        one, two, four = runs
        assert two - one > 0.05, command
        assert four - two == pytest.approx(2 * (two - one), rel=1e-4), f"{command}: a weight is in the numerator alone"


def test_a_margin_that_the_objective_ignores_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = _rows(tmp_path / "rows.jsonl", "pairs", margin=0.5)
    run_burnish(*job(data, tmp_path / "run", "--loss_type", "ipo"), expect=2)
    assert "margin is used by sigmoid" in capsys.readouterr().err


def test_an_objective_that_is_only_logged_has_the_columns_that_it_needs_or_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_pairs(tmp_path / "plain.jsonl")
    run_burnish(*job(plain, tmp_path / "none", "--shadow_losses", "odpo"), expect=2)
    assert "odpo needs a margin in every row" in capsys.readouterr().err
    some = _rows(tmp_path / "some.jsonl", "pairs", margin=0.5)
    run_burnish(*job(some, tmp_path / "some", "--shadow_losses", "odpo"), expect=2)
    assert "odpo needs a margin in every row, and some rows have none" in capsys.readouterr().err
    words = ["--loss_type", "hinge", "--shadow_losses", "sigmoid,ipo", "--global_batch_size", 24, "--max_steps", 1]
    run_burnish(*job(some, tmp_path / "used", *words))
    # At the start every reward is 0, so that the margin is all that sigmoid sees: half of the rows have one of 0.5.
    record = read_metrics(tmp_path / "used")[0]
    expected = (math.log(2) + math.log(1 + math.exp(0.5))) / 2
    assert record["shadow/sigmoid"] == pytest.approx(expected, rel=1e-5)
    assert "shadow/ipo" in record
