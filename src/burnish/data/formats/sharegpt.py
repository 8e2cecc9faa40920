"""ShareGPT rows as LLaMA-Factory keeps them: conversations of from/value turns, with chosen and rejected turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from burnish.data.examples import Content, Example, Message, describe, read_messages, read_text
from burnish.data.formats.trl import conversation_example
from burnish.data.rows import RowError

ROLE_OF = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
    "function_call": "assistant",
}


def read_sharegpt(row: Mapping[str, Any]) -> Example | None:
    """Read conversations, with chosen and rejected turns (preference), a label (unpaired) or neither.

    `messages` with one chosen and one rejected message (OpenAI's roles) is the same form.
    """
    column = "conversations" if "conversations" in row else "conversation" if "conversation" in row else "messages"
    paired = "chosen" in row or "rejected" in row
    if column not in row or (column == "messages" and not paired):
        return None
    turns = _read_turns(row[column], column)
    system = row.get("system")
    if system:
        turns = [{"role": "system", "content": read_text(system, "system")}, *turns]
    if not paired:
        return conversation_example("ShareGPT", turns, row.get("label", row.get("kto_tag")))
    for name in ("chosen", "rejected"):
        if name not in row:
            raise RowError(f"{name} is missing or null")
    completions: list[Content] = [_read_turns(row[name], name) for name in ("chosen", "rejected")]
    return Example("preference", "ShareGPT preference", turns, completions)


def _read_turns(value: Any, column: str) -> list[Message]:
    if isinstance(value, str) and column in {"chosen", "rejected"}:
        return [{"role": "assistant", "content": read_text(value, column)}]
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list | tuple) or not turns:
        raise RowError(f"{column} is {describe(value)}, not a list of turns")
    if isinstance(turns[0], Mapping) and "role" in turns[0]:
        return read_messages(turns, column)
    return [_read_turn(turn, f"{column}[{number}]") for number, turn in enumerate(turns)]


def _read_turn(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping) or turn.get("from") is None:
        raise RowError(f"{where} is {describe(turn)}, not a turn with from and value")
    speaker = turn["from"]
    role = ROLE_OF.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise RowError(f"{where}.from is {describe(speaker)}; known: {', '.join(ROLE_OF)}")
    text = read_text(turn.get("value"), f"{where}.value")
    call = _function_call(text) if speaker == "function_call" else None
    return {"role": role, "content": text} if call is None else {"role": role, "content": "", "tool_calls": call}


def _function_call(text: str) -> list[dict[str, Any]] | None:
    """Return tool calls in OpenAI's form, or None where the text is no JSON call (it then stands as it is)."""
    try:
        calls = json.loads(text)
    except (ValueError, RecursionError):
        return None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return [
        {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}
        for call in calls
    ]
