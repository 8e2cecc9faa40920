"""The four answers that a setting of TRL can get. What is none of them is an unknown setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Layer = Mapping[str, Any]
"""All keys written in one place (the command line, or one file), read plainly."""


@dataclass(frozen=True)
class Same:
    """Ours has the same name; there is something to say, or a value to read differently."""

    note: str
    zh: str
    read: Callable[[Any], Any] | None = None
    """Turns a value of TRL's into one of ours; gets and gives back what was written."""
    told: bool = False
    """Whether the note is told when `read` changes the value."""
    may_be_none: bool = False
    """Whether TRL's value may be none where ours may not: then ours keeps its default."""


@dataclass(frozen=True)
class Translated:
    """Ours has another name or form."""

    to: str
    """Our setting's name, for people."""
    read: Callable[[Any, Layer], dict[str, Any]]
    """From the value, read plainly, and the other keys of its layer to our settings."""
    note: str = ""
    zh: str = ""
    is_bag: bool = False
    """Whether it holds arguments of several settings: read in Python, it is None, for it was taken apart."""


@dataclass(frozen=True)
class NotNeeded:
    """Has no meaning here; one line says why, and the run goes on."""

    why: str
    zh: str


@dataclass(frozen=True)
class Refused:
    """Not supported: an error, unless the value asks for nothing."""

    instead: str
    """What to use instead."""
    zh: str
    harmless: tuple[Any, ...] = (None, False)
    """Values that ask for nothing and pass in silence."""


Answer = Same | Translated | NotNeeded | Refused
Table = Mapping[str, Answer]


def renamed(to: str, note: str = "", zh: str = "") -> Translated:
    """The same meaning under another name; none leaves ours as it is."""
    return Translated(to, lambda value, _: {} if value is None else {to: value}, note, zh)
