"""One row is shown as the model will see it: every token once, with what becomes of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from burnish.cli.explain import print_explanation
from burnish.cli.main import main
from burnish.data.explain import Explanation, explain_row
from burnish.data.settings import DataSettings
from burnish.data.sources import rows_of
from burnish.errors import DataError
from row_builders import pair

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_ids"
TALK = {
    "prompt": [{"role": "user", "content": "Weather in Bern?"}],
    "chosen": [
        {"role": "assistant", "content": "look(Bern)"},
        {"role": "tool", "content": "clear sky"},
        {"role": "assistant", "content": "It is clear."},
    ],
    "rejected": [{"role": "assistant", "content": "No idea."}],
}


def _explain(row: Any, tokenizer: Any, **settings: Any) -> Explanation:
    (explanation,) = explain_row(rows_of([row]), 1, tokenizer, DataSettings(**settings))
    return explanation


def _states(explanation: Explanation, text: int) -> list[tuple[str, int]]:
    return [(segment.state, len(segment.ids)) for segment in explanation.texts[text].segments]


def test_tokens_that_train_are_those_of_the_prepared_group(chatml: Any, prepare: Callable[..., Any]) -> None:
    for options in ({}, {"max_length": 110}, {"max_length": 110, "truncation_mode": "keep_end"}):
        group = prepare([TALK], **options).groups[0]
        explanation = _explain(TALK, chatml, **options)
        assert (explanation.fate, explanation.form) == ("used", "preference")
        prompt, *completions = explanation.texts
        assert prompt.count("prompt") == len(group.prompt_ids)
        for text, ids, mask in zip(completions, group.completion_ids, group.completion_mask, strict=True):
            kept = [token for segment in text.segments if segment.state != "cut" for token in segment.ids]
            assert kept == ids.tolist()
            assert text.count("counted") == mask.sum()


def test_the_whole_row_is_shown_with_what_was_cut(chatml: Any) -> None:
    whole = _explain(TALK, chatml)
    for options in ({"max_length": 110}, {"max_length": 110, "truncation_mode": "keep_end"}, {"max_length": 9}):
        cut = _explain(TALK, chatml, **options)
        for before, after in zip(whole.texts, cut.texts, strict=True):
            assert "".join(segment.text for segment in after.segments) == "".join(s.text for s in before.segments)
    assert "clear sky" in next(s.text for s in whole.texts[1].segments if s.state == "not counted")
    assert [state for state, _ in _states(whole, 1)] == ["counted", "not counted", "counted"]


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        (pair(chosen=""), "dropped: empty completion"),
        (pair(chosen="a", rejected="a"), "dropped: identical pair"),
        ({**pair(), "chosen": True}, "unusable: chosen is a boolean (true), not a list of messages"),
        ({"question": "a", "reply": "b"}, "unusable: its columns are no known form"),
        ({"prompt": "a"}, "unusable: a prompt alone"),
    ],
)
def test_a_row_that_is_not_used_says_why(row: dict[str, Any], fate: str, chatml: Any) -> None:
    assert _explain(row, chatml).fate == fate


def test_an_overlong_prompt_is_shown_whole(chatml: Any) -> None:
    explanation = _explain(pair(), chatml, max_length=5)
    assert explanation.fate == "dropped: over-long prompt"
    assert [text.count("cut") for text in explanation.texts] == [0, 0, 0]


def test_a_row_that_is_not_there_is_named(chatml: Any) -> None:
    with pytest.raises(DataError, match="data set has no row 9: its last is 1"):
        explain_row(rows_of([pair()]), 9, chatml, DataSettings())
    with pytest.raises(DataError, match="data set has no row 1: it is empty"):
        explain_row(rows_of([]), 1, chatml, DataSettings())


def test_an_unpaired_row_and_a_conversation_are_explained_too(chatml: Any) -> None:
    labelled = {"prompt": "a", "completion": "b", "label": False}
    assert [text.name for text in _explain(labelled, chatml).texts] == ["prompt", "undesirable completion"]
    assert _explain({"text": "Once upon a time"}, chatml).texts[1].segments[0].state == "prompt"


def test_the_print_is_plain_without_a_terminal_and_coloured_on_one(chatml: Any) -> None:
    explanation = _explain(pair(chosen="[bold]56[/bold] \x1b[2J"), chatml, max_length=60)
    plain, coloured = io.StringIO(), io.StringIO()
    print_explanation(explanation, Console(file=plain, soft_wrap=True, highlight=False))
    print_explanation(explanation, Console(file=coloured, soft_wrap=True, highlight=False, force_terminal=True))
    assert "\x1b" not in plain.getvalue()
    assert "[bold]56[/bold] \\x1b[2J" in plain.getvalue()
    assert "\x1b[2J" not in coloured.getvalue()
    assert "\x1b[" in coloured.getvalue()


def test_the_command_prints_the_row(write_lines: Any, capsys: Any) -> None:
    path = write_lines(pair(), "", pair("Hi", "Hello!", "No."))
    flags = ["--model_name_or_path", str(GOLDEN / "chatml"), "--max-length", "100"]
    assert main(["explain", str(path), "--row", "3", *flags]) == 0
    out = capsys.readouterr().out
    assert f"{path}:3 · preference · used" in out
    assert "Hello!<|im_end|>" in out
    assert main(["explain", str(path), "--row", "2", *flags]) == 2
    assert "has no row 2: the line is blank" in capsys.readouterr().err
    assert main(["explain", "--row", "2", *flags]) == 2
    assert "name the data set" in capsys.readouterr().err
    assert main(["explain", str(path), "--row", "0", *flags]) == 2
    assert "row" in capsys.readouterr().err
