"""Transcripts as in hh-rlhf: one text with "Human:" and "Assistant:" turns, the prompt inside both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from burnish.data.examples import Example, Message, read_text
from burnish.data.formats.trl import implicit_pair
from burnish.data.rows import RowError

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ ]?")
_ROLE = {"Human": "user", "Assistant": "assistant"}


def read_transcripts(row: Mapping[str, Any]) -> Example | None:
    """Read chosen and rejected transcripts without a prompt column; each turn is stripped of surrounding space."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if "prompt" in row or not (_is_transcript(chosen) and _is_transcript(rejected)):
        return None
    pair = [
        _read_transcript(read_text(text, name), name) for name, text in (("chosen", chosen), ("rejected", rejected))
    ]
    return implicit_pair("hh-rlhf transcripts", *pair)


def _is_transcript(text: Any) -> bool:
    return isinstance(text, str) and text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def _read_transcript(text: str, column: str) -> list[Message]:
    pieces = _TURN.split("\n\n" + text.lstrip())
    turns: list[Message] = [
        {"role": _ROLE[speaker], "content": words.strip()}
        for speaker, words in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    if turns[-1]["role"] != "assistant":
        raise RowError(f"{column} ends with a turn of Human")
    return turns
