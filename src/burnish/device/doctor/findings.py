"""What a check answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.device.doctor.machine import Machine
from burnish.device.doctor.messages import MESSAGES, Language

Status = Literal["ok", "warning", "failure", "skipped"]
RANK: Mapping[Status, int] = {"skipped": 0, "ok": 1, "warning": 2, "failure": 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer; its words are chosen by language when it is printed."""

    status: Status
    key: str
    """Which message of `messages`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[Finding, ...] = ()
    """Further findings of the same check, printed under it."""

    def text(self, language: Language) -> str:
        """What was found, in one line."""
        return _fill(MESSAGES[self.key].text(language), self.values, language)

    def cure(self, language: Language) -> str:
        """What to do about it; empty where nothing needs doing."""
        return _fill(MESSAGES[self.key].cure(language), self.values, language)

    @property
    def worst(self) -> Status:
        """The gravest status, further findings included."""
        return max((self.status, *(other.worst for other in self.also)), key=RANK.__getitem__)


Check = Callable[[Machine], Finding]


def ok(key: str, /, **values: Any) -> Finding:
    """Say that a link of the chain holds."""
    return Finding("ok", key, values)


def warning(key: str, /, **values: Any) -> Finding:
    """Say that training may run, but not as the user would want."""
    return Finding("warning", key, values)


def failure(key: str, /, **values: Any) -> Finding:
    """Say that training on this machine's device cannot work."""
    return Finding("failure", key, values)


def skipped(key: str, /, **values: Any) -> Finding:
    """Say that a check does not apply, and why."""
    return Finding("skipped", key, values)


def gravest_first(findings: list[Finding]) -> Finding:
    """Join the findings of one check: the gravest leads, the others follow in their order."""
    lead = max(findings, key=lambda finding: RANK[finding.status])
    rest = tuple(finding for finding in findings if finding is not lead)
    return Finding(lead.status, lead.key, lead.values, rest)


def _fill(pattern: str, values: Mapping[str, Any], language: Language) -> str:
    return pattern.format_map({name: in_words(value, language) for name, value in values.items()})


def in_words(value: Any, language: Language) -> str:
    """Write a value: a list with the language's comma, a (English, Chinese) pair as the one of them."""
    if isinstance(value, Both):
        return value.chinese if language == "zh" else value.english
    if isinstance(value, (list, tuple)):
        return ("、" if language == "zh" else ", ").join(in_words(item, language) for item in value)
    return str(value)


@dataclass(frozen=True, slots=True)
class Both:
    """A value that reads differently in the two languages."""

    english: str
    chinese: str
