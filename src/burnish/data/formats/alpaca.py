"""Alpaca rows (instruction, input, output), their preference form, and questions with an answer or a pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.data.examples import Content, Example, Message, describe, read_label, read_text
from burnish.data.rows import RowError


def read_alpaca(row: Mapping[str, Any]) -> Example | None:
    """Read an instruction with its output, or with chosen and rejected (two columns, or an output list of two)."""
    ask = "instruction" if "instruction" in row else "question" if "question" in row else None
    if "prompt" in row:
        return None
    pair = _pair(row)
    if ask == "question" and pair is None and "answer" in row:
        return Example(
            "prompt_completion", "question and answer", _prompt(row, ask), [_answer(row["answer"], "answer")]
        )
    if ask is None or (pair is None and (ask == "question" or "output" not in row)):
        return None
    prompt = _prompt(row, ask)
    if pair is not None:
        completions: list[Content] = [_answer(value, column) for column, value in pair]
        form = "Alpaca preference" if ask == "instruction" else "question preference"
        return Example("preference", form, prompt, completions)
    answer = _answer(row["output"], "output")
    label = row.get("label", row.get("kto_tag"))
    if label is None:
        return Example("prompt_completion", "Alpaca", prompt, [answer])
    return Example("unpaired", "Alpaca, unpaired", prompt, [answer], label=read_label(label, "label"))


def _pair(row: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    if "chosen" in row and "rejected" in row:
        return [("chosen", row["chosen"]), ("rejected", row["rejected"])]
    output = row.get("output")
    if not isinstance(output, list):
        return None
    if len(output) != 2:
        raise RowError(f"output is a list of {len(output)}; a pair is [chosen, rejected]")
    return [("output[0]", output[0]), ("output[1]", output[1])]


def _prompt(row: Mapping[str, Any], ask: str) -> list[Message]:
    turns: list[Message] = []
    if row.get("system"):
        turns.append({"role": "system", "content": read_text(row["system"], "system")})
    turns += _history(row.get("history"))
    words = read_text(row[ask], ask)
    more = read_text(row.get("input", ""), "input") if ask == "instruction" else ""
    return [*turns, {"role": "user", "content": f"{words}\n{more}" if words and more else words or more}]


def _history(history: Any) -> list[Message]:
    turns: list[Message] = []
    if history and not isinstance(history, list | tuple):
        raise RowError(f"history is {describe(history)}, not a list of [instruction, answer]")
    for number, entry in enumerate(history or []):
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise RowError(f"history[{number}] is {describe(entry)}, not [instruction, answer]")
        turns.append({"role": "user", "content": read_text(entry[0], f"history[{number}][0]")})
        turns.append({"role": "assistant", "content": read_text(entry[1], f"history[{number}][1]")})
    return turns


def _answer(value: Any, column: str) -> list[Message]:
    return [{"role": "assistant", "content": read_text(value, column)}]
