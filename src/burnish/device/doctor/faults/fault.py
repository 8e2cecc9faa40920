"""One known error text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from burnish.device.doctor.findings import Both


@dataclass(frozen=True, slots=True)
class Fault:
    """An error text, why it appears, and what to do."""

    name: str
    """Short, stable, for tests and for pasting."""
    pattern: re.Pattern[str]
    """Finds the text within a line of a log."""
    cause: Both
    cure: Both
    generic: bool = False
    """Follows from another error that is usually in the same log: told last."""


def fault(name: str, pattern: str, *, cause: Both, cure: Both, generic: bool = False) -> Fault:
    """Make a Fault from a regular expression, which ignores case."""
    return Fault(name, re.compile(pattern, re.IGNORECASE), cause, cure, generic)


def codes(*numbers: str) -> str:
    """Regular expression of numeric error codes: where something says that it is one, or at the start of the text.

    The same digits elsewhere are a step, a size or a token count.
    """
    announced = r"(?:^\W*|(?:err|code|ret\b|ret=|acl|fail|exception|E[A-Z]\d{4}).{0,120}?)"
    return rf"{announced}(?<![\d.])(?:{'|'.join(numbers)})\b(?!\.\d)"
