"""Rows without a tokenizer: a character is a token, and turns stand as their words, without a template.

Negative ids are marks, which have no length: the begin of a text, and the roles of turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import cast

from burnish.data.encoders import Batch, EncodedBatch
from burnish.data.examples import ROLES, Content, Example, Message, content_text
from burnish.data.tokenise import Encoded

BEGIN = -1
"""Stands for a prompt without words, as a tokenizer's begin-of-text token would."""
ROLE_MARKS = {role: -2 - number for number, role in enumerate(ROLES)}


def encode_characters(batches: Iterable[Batch]) -> Iterator[EncodedBatch]:
    """Encode batches by their characters; nothing is refused, nothing cut."""
    return ((batch, [_encode(example) for example in batch.examples]) for batch in batches)


def count_characters(ids: list[int]) -> int:
    """Return how many of the ids are no marks."""
    return sum(value >= 0 for value in ids)


def count_words(ids: list[int]) -> int:
    """Return how many words, separated by space, the characters make."""
    return len("".join(chr(value) if value >= 0 else " " for value in ids).split())


def _encode(example: Example) -> Encoded:
    completions = [_characters(completion) for completion in example.completions]
    return Encoded(_characters(example.prompt) or [BEGIN], completions, [None] * len(completions))


def _characters(content: Content) -> list[int]:
    if isinstance(content, str):
        return list(map(ord, content))
    if not content or isinstance(content[0], int):
        return cast("list[int]", list(content))
    ids: list[int] = []
    for turn in cast("list[Message]", content):
        ids += [ROLE_MARKS[turn["role"]], *map(ord, _words(turn))]
    return ids


def _words(turn: Message) -> str:
    calls = turn.get("tool_calls")
    words = content_text([{**turn, "tool_calls": None}])
    return words + json.dumps(calls, sort_keys=True, default=str) if calls else words
