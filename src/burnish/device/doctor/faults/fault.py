"""One known error text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from burnish.device.doctor.findings import Both

_ANNOUNCES = re.compile(r"^\W*$|err|code|\bret\b|acl|fail|exception|E[A-Z]\d{4}", re.IGNORECASE)
_REACH = 120


@dataclass(frozen=True, slots=True)
class Fault:
    """An error text, why it appears, and what to do."""

    name: str
    """Short, stable, for tests and for pasting."""
    pattern: re.Pattern[str] | None
    """Finds the text within a line of a log."""
    codes: re.Pattern[str] | None
    """Finds the numeric codes that mean the same."""
    cause: Both
    cure: Both
    generic: bool = False
    """Follows from another error that is usually in the same log: told last."""

    def fits(self, line: str) -> bool:
        """Whether a line carries this text, or its code where something says that it is one.

        The same digits elsewhere are a step, a size or a token count. The digits are looked for first: few lines have
        them, and a log has many lines.
        """
        if self.pattern is not None and self.pattern.search(line):
            return True
        if self.codes is None:
            return False
        return any(
            _ANNOUNCES.search(line[max(0, code.start() - _REACH) : code.start()]) for code in self.codes.finditer(line)
        )


def fault(name: str, pattern: str, *, cause: Both, cure: Both, codes: str = "", generic: bool = False) -> Fault:
    """Make a Fault.

    Args:
        name: see Fault.
        pattern: regular expression of the text, case ignored; empty for a fault known by its code only.
        cause: why it appears.
        cure: what to do.
        codes: regular expression of its numeric codes.
        generic: see Fault.
    """
    text = re.compile(pattern, re.IGNORECASE) if pattern else None
    numbers = re.compile(rf"(?<![\d.])(?:{codes})\b(?!\.\d)") if codes else None
    return Fault(name, text, numbers, cause, cure, generic)
