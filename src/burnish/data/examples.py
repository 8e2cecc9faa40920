"""A recognised row: prompt and completions as text, messages or token ids, whatever the row looked like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.data.rows import RowError

Message = dict[str, Any]
"""One turn: role and content, and what else the chat template reads (tool_calls, name, …)."""

Content = str | list[Message] | list[int]
"""Plain text, a conversation, or token ids."""

Shape = Literal["preference", "unpaired", "prompt_completion", "messages", "text", "ranked", "prompt"]
"""What a row offers: a pair (chosen first), a completion with a label, a completion, a conversation, a text, a ranked
list, or a prompt alone."""

_OBJECTS = (dict, Mapping)
"""Asked in this order: a dict is told at once, another mapping takes many times as long."""

ROLES = ("system", "developer", "user", "assistant", "tool")


Counted = Literal["completion", "assistant", "all"]
"""Which tokens a method learns from: what the policy says in the completion; the assistant's turns, as the template or
their borders mark them; or everything, the prompt included."""


@dataclass(slots=True)
class Example:
    """One row in the one form that all later steps know.

    Prompt and completions are all plain text, all conversations, or all token ids. A `messages` or `text` row has an
    empty prompt and one completion.
    """

    shape: Shape
    form: str
    """The form that was recognised, in words, e.g. "ShareGPT preference"."""
    prompt: Content
    completions: list[Content] = field(default_factory=list)
    label: bool | None = None
    ranking: tuple[int, ...] | None = None
    weight: float = 1.0
    margin: float | None = None
    label_smoothing: float | None = None
    ref_logps: tuple[float, ...] | None = None
    """log π_ref of each completion, nats."""
    token_weights: list[list[float] | None] | None = None
    """Weight of each token, of each completion of a pair."""
    spans: list[list[tuple[int, int, float]] | None] | None = None
    """Weighted spans of characters, of each completion of a pair."""
    tools: list[Any] | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    counted: Counted = "completion"
    _words: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def words(self) -> tuple[str, ...]:
        """What `content_text` says of the prompt and of each completion; found once."""
        if self._words is None:
            self._words = tuple(map(content_text, (self.prompt, *self.completions)))
        return self._words

    @property
    def layout(self) -> Literal["plain", "conversational", "ids"]:
        contents = self.completions or [self.prompt]
        if isinstance(contents[0], str):
            return "plain"
        return "conversational" if contents[0] and isinstance(contents[0][0], dict) else "ids"


def describe(value: Any) -> str:
    """Say what a value is, in JSON's words, short enough for an error line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"a boolean ({str(value).lower()})"
    if isinstance(value, int | float):
        return f"a number ({value:.6g})"
    if isinstance(value, str):
        return f"text ({value[:20]!r}{'…' if len(value) > 20 else ''})"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def read_text(value: Any, column: str) -> str:
    """Return text that a tokenizer can encode.

    Raises:
        RowError: not text, or text with a lone surrogate.
    """
    if not isinstance(value, str):
        raise RowError(f"{column} is {describe(value)}, not text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowError(f"{column} holds a lone surrogate (character {error.start + 1})") from None
    return value


def is_conversation(value: Any) -> bool:
    """Whether the value looks like a list of role/content messages; their contents are not checked."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], _OBJECTS) and "role" in value[0]


def read_messages(value: Any, column: str) -> list[Message]:
    """Return a checked conversation: known roles, text contents; keys without a value are left out.

    Raises:
        RowError: a turn that is no message, has no role, an unknown role or a content that is no text.
    """
    if isinstance(value, _OBJECTS):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise RowError(f"{column} is {describe(value)}, not a list of messages")
    return [_read_message(turn, f"{column}[{number}]") for number, turn in enumerate(value)]


def _read_message(turn: Any, where: str) -> Message:
    if not isinstance(turn, _OBJECTS):
        raise RowError(f"{where} is {describe(turn)}, not a message with role and content")
    role = turn.get("role")
    if role not in ROLES:
        raise RowError(f"{where}.role is {describe(role)}; known roles: {', '.join(ROLES)}")
    message = {str(key): entry for key, entry in turn.items() if entry is not None}
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [_read_part(part, f"{where}.content[{n}]") for n, part in enumerate(content)]
    elif content is None and message.get("tool_calls"):
        message["content"] = ""
    else:
        read_text(content, f"{where}.content")
    return message


def _read_part(part: Any, where: str) -> Message:
    if not isinstance(part, Mapping) or "type" not in part:
        raise RowError(f"{where} is {describe(part)}, not a content part with a type")
    if part["type"] != "text":
        raise RowError(f"{where} is of type {part['type']!r}: only text is supported")
    return {"type": "text", "text": read_text(part.get("text"), f"{where}.text")}


def read_ids(value: Any, column: str) -> list[int]:
    """Return a checked list of token ids.

    Raises:
        RowError: not a list of integers ≥ 0.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise RowError(f"{column} is {describe(value)}, not a list of token ids")
    for entry in value:
        if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry < 2**31:
            raise RowError(f"{column} holds {describe(entry)}, not a token id")
    return list(value)


def read_number(value: Any, column: str, *, at_least: float | None = None) -> float:
    """Return a finite number.

    Raises:
        RowError: no number, not finite, or below `at_least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError(f"{column} is {describe(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (at_least is not None and number < at_least):
        raise RowError(
            f"{column} is {number:.6g}; it must be finite" + (f" and ≥ {at_least:g}" if at_least is not None else "")
        )
    return number


def read_label(value: Any, column: str) -> bool:
    """Return a boolean; 0 and 1 are taken as well.

    Raises:
        RowError: anything else.
    """
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise RowError(f"{column} is {describe(value)}, not true or false")


def content_text(content: Content) -> str:
    """Return the words of a completion, to see whether it is empty; token ids give a text that is empty with them."""
    if isinstance(content, str):
        return content
    parts: list[str] = []
    for turn in content:
        if not isinstance(turn, dict):
            return "ids"
        words = turn.get("content") or ""
        parts.append(words if isinstance(words, str) else "".join(part["text"] for part in words))
        if turn.get("tool_calls"):
            parts.append("calls")
    return "".join(parts)
