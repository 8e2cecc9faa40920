"""`burnish check` as a user runs it: tables, JSON, exit codes, and two lines for what cannot be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from row_builders import pair
from runs import run_burnish, spawn_burnish

CHATML = Path(__file__).parents[1] / "golden" / "trl_ids" / "chatml"


def _write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_clean_file_is_told_in_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "pairs.jsonl", *(pair(f"Question {n}", "a" * n, "b") for n in range(2, 40)))
    run_burnish("check", path, "--model", CHATML)
    out = capsys.readouterr().out
    assert "38 rows, 38 preference pairs used" in " ".join(out.split())
    for words in ("prompt + longest", "truncation: none", "length bias", "template:", "no errors", "<|im_end|> (76)"):
        assert words in out, words


def test_errors_end_with_two_and_stand_in_the_table_and_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path / "pairs.jsonl", pair(), "{broken", pair(chosen=True), pair("x", "", "b"))
    run_burnish("check", path, expect=2)
    out = " ".join(capsys.readouterr().out.split())
    assert "error 2 50.0 % unusable rows lines 2, 3" in out
    assert "dropped 1 25.0 % empty completion line 4" in out
    assert "error: " in out
    assert "pairs.jsonl:2: not JSON" in out
    run_burnish("check", path, "--on_bad_row", "skip")


def test_json_goes_to_a_file_beside_the_tables_or_alone_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    _write(tmp_path / "data" / "train.jsonl", pair(), pair("Hi", "a", "b"))
    _write(tmp_path / "data" / "test.jsonl", pair())
    run_burnish("check", tmp_path / "data", "--json", tmp_path / "check.json", "--model", CHATML)
    assert "evaluation: " in capsys.readouterr().out
    run_burnish("check", tmp_path / "data", "--json", "-", "--model", CHATML)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "check.json").read_text())
    assert printed["train"]["rows_read"] == 2
    assert printed["eval"]["counts"] == {"shared_prompt": 1}


def test_several_sets_are_checked_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "pairs.jsonl", pair())
    run_burnish("check", path, "--eval_data", f"math={path}", expect=2)
    assert "looks at one set; give it with --eval_dataset_name FILE" in capsys.readouterr().err


def test_without_a_tokenizer_no_length_in_tokens_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "pairs.jsonl", pair("a long question", "a long answer", "another"))
    run_burnish("check", path, "--max_prompt_length", 2, "--max_completion_length", 2, "--json", "-")
    assert json.loads(capsys.readouterr().out)["train"]["counts"] == {}


def test_strangers_texts_reach_the_terminal_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = pair("\x1b[31m[bold]red[/bold]\x07 \u202eevil", "a", "b")
    run_burnish(
        "check", _write(tmp_path / "pairs.jsonl", row, pair(chosen={"\x1b[2J": 1})), "--model", CHATML, expect=2
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]red[/bold]" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name the data set"),
        (["nowhere.jsonl"], "no file or folder nowhere.jsonl"),
        (["{file}", "--kind", "dpo"], "preference"),
        (["{file}", "--jsn", "x"], "did you mean json"),
        (["{file}", "--model", "./no-such-model"], "no-such-model"),
        (["{file}", "--json", "no/such/folder.json"], "--json no/such/folder.json can't be written"),
        (["{file}", "--max_length", "1"], "max_length"),
    ],
)
def test_what_cannot_be_checked_is_told_in_two_lines(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path / "pairs.jsonl", pair())
    run_burnish("check", *(word.format(file=path) for word in words), expect=2)
    captured = capsys.readouterr()
    assert says in captured.err
    assert len(captured.err.strip().splitlines()) <= 2
    assert not captured.out


def test_a_terminal_that_knows_only_ascii_gets_escapes(tmp_path: Path) -> None:
    path = _write(tmp_path / "é.jsonl", pair("你好", "好", "不"), "{")
    done = spawn_burnish("check", path, "--model", CHATML, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "\\u4f60\\u597d" in done.stdout
    assert not done.stderr
