"""Pairs with a judge's verdict: LLMBar, PandaLM, and the model-written persona questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.data.examples import Content, Example, describe, read_text
from burnish.data.formats.alpaca import read_alpaca
from burnish.data.rows import DroppedRow, RowError


def read_llmbar(row: Mapping[str, Any]) -> Example | None:
    """Read input, output_1, output_2 and label (1 or 2: which is better)."""
    if not {"input", "output_1", "output_2", "label"} <= row.keys():
        return None
    best = row["label"]
    if isinstance(best, bool) or best not in (1, 2):
        raise RowError(f"label is {describe(best)}, not 1 or 2")
    pair = [_answer(row[name], name) for name in ("output_1", "output_2")]
    prompt = [{"role": "user", "content": read_text(row["input"], "input")}]
    return Example("preference", "LLMBar", prompt, pair if best == 1 else pair[::-1])


def read_pandalm(row: Mapping[str, Any]) -> Example | None:
    """Read instruction, input, response1, response2 and annotators' votes (0 a tie, 1, 2); the majority decides.

    Raises:
        DroppedRow: neither response has more votes than the other and than the tie.
    """
    votes = [value for name, value in row.items() if str(name).startswith("annotator")]
    if not {"instruction", "response1", "response2"} <= row.keys() or not votes:
        return None
    if any(isinstance(vote, bool) or vote not in (0, 1, 2) for vote in votes):
        raise RowError("an annotator's vote is not 0, 1 or 2")
    asked = read_alpaca({**{name: row[name] for name in ("instruction", "input") if name in row}, "output": ""})
    if asked is None:  # cannot be: both columns are there
        return None
    pair = [_answer(row[name], name) for name in ("response1", "response2")]
    first, second = votes.count(1), votes.count(2)
    if first == second or votes.count(0) >= max(first, second):
        raise DroppedRow("tie")
    return Example("preference", "PandaLM", asked.prompt, pair if first > second else pair[::-1])


def read_persona(row: Mapping[str, Any]) -> Example | None:
    """Read a question with the answer that matches the behaviour (chosen) and the one that does not, as plain text.

    The answers begin with a space: they continue the question's text, with or without a chat template.
    """
    names = ("answer_matching_behavior", "answer_not_matching_behavior")
    if "question" not in row or not all(name in row for name in names):
        return None
    pair: list[Content] = [read_text(row[name], name) for name in names]
    return Example("preference", "persona question", read_text(row["question"], "question"), pair)


def _answer(value: Any, column: str) -> Content:
    return [{"role": "assistant", "content": read_text(value, column)}]
