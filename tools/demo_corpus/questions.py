"""What a question of the demo is, and how families of questions are written down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to ask about in many wordings; every statement ends with the answer, which is what the judge reads."""

    kind: str
    """The family: addition, subtraction, multiplication, unit, date, opposite, fact or translation."""
    language: str
    """en or zh."""
    wordings: tuple[str, ...]
    """Questions that all have the same answer."""
    statements: tuple[str, ...]
    """Complete sentences, without their final stop, that end with the answer."""
    answer: str
    """The shortest right answer."""
    mistakes: tuple[str, ...]
    """Wrong answers that a careless reply might give."""


@dataclass(frozen=True, slots=True)
class Question:
    """One wording of one fact."""

    text: str
    fact: Fact


@dataclass(frozen=True, slots=True)
class Family:
    """Wordings and statements with the fields of their facts in braces, for one kind in one language."""

    kind: str
    language: str
    wordings: tuple[str, ...]
    statements: tuple[str, ...]

    def fact(self, answer: str, mistakes: Iterable[str], **fields: object) -> Fact:
        """Fill the templates; `{answer}` is available to them as well."""
        wrong = tuple(dict.fromkeys(mistake for mistake in mistakes if mistake != answer))
        return Fact(
            kind=self.kind,
            language=self.language,
            wordings=tuple(wording.format(answer=answer, **fields) for wording in self.wordings),
            statements=tuple(statement.format(answer=answer, **fields) for statement in self.statements),
            answer=answer,
            mistakes=wrong,
        )


def near_misses(number: int) -> list[str]:
    """Wrong numbers near a right one, none negative."""
    return [str(number + offset) for offset in (-10, -2, -1, 1, 2, 10) if number + offset >= 0]


def neighbours(values: list[str], place: int, count: int = 4) -> list[str]:
    """The `count` values after a place in a table, wrapping round: plausible wrong answers."""
    return [values[(place + step) % len(values)] for step in range(1, count + 1)]


def every_question(facts: Iterable[Fact]) -> Iterator[Question]:
    """All wordings of all facts, in order."""
    for fact in facts:
        for wording in fact.wordings:
            yield Question(wording, fact)
