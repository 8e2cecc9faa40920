"""What a source hands on: rows, the places they stand at, and rows that could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

Row = Mapping[str, Any]
"""One row: column name → value."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands, in the words of whoever has to look it up."""

    source: str
    """File, folder or hub id."""
    row: int
    """Line number (from 1) in a JSON Lines file, else the row's number (from 1)."""
    line: int | None = None
    """Line number in the file (from 1), where the file has lines."""

    def __str__(self) -> str:
        return f"{self.source}, row {self.row}" if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read, with the reason."""

    reason: str
    text: str = ""
    """What stood there, shortened; for rejected_rows.jsonl."""


class RowError(ValueError):
    """A row that was read but cannot be used as it is; the message is the reason, without the place."""


class UnknownForm(RowError):  # noqa: N818 (reads as what it says)
    """A row whose columns are no known form."""


class DroppedRow(Exception):  # noqa: N818 (not a fault of the row: it holds nothing to learn from)
    """A well-formed row that holds nothing to learn from; `kind` is counted in the report."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


ReadRow = tuple[Row | BadRow, Place]


@dataclass(frozen=True)
class RowSource:
    """Rows that can be read from the start as often as wanted.

    `fingerprint` is a sha256 over the content (file bytes or the data set's own fingerprint) and the split; the limit
    is added by `limited`. `num_rows` is None where counting would mean reading.
    """

    name: str
    fingerprint: str
    read: Callable[[], Iterator[ReadRow]]
    num_rows: int | None = None

    def __iter__(self) -> Iterator[ReadRow]:
        return self.read()

    def limited(self, max_rows: int | None) -> RowSource:
        """Return a source of the first `max_rows` rows, those that cannot be read included; None is no limit."""
        if max_rows is None:
            return self
        num_rows = None if self.num_rows is None else min(self.num_rows, max_rows)
        return RowSource(self.name, f"{self.fingerprint}[:{max_rows}]", lambda: islice(self.read(), max_rows), num_rows)
