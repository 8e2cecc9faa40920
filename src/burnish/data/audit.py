"""What only shows over all rows: duplicates, pairs that contradict each other, prompts shared with another set."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from burnish.data.groups import PromptGroup
from burnish.data.report import EXAMPLES_KEPT, DataReport
from burnish.data.store import GroupStore

ID_COLUMNS = ("id", "idx", "uid", "uuid", "row_id", "example_id")
"""Columns in which rows name themselves; `prompt_id` is left out, for one prompt may have many rows."""


@dataclass(slots=True)
class RowHashes:
    """64-bit hashes, 16 bytes a group and 16 a row with an id; they live for one process only (Python salts them)."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    swapped: array[int] = field(default_factory=lambda: array("q"))
    """The hash that a row with the same pair in the other order has; 0 where there is no pair."""
    ids: array[int] = field(default_factory=lambda: array("q"))
    """Hashes of the rows' own ids, of the rows that have one."""
    id_rows: array[int] = field(default_factory=lambda: array("q"))
    """The rows' numbers, as `ids`."""

    def add_id(self, row: Mapping[str, Any], number: int) -> None:
        """Remember the id that a row gives itself, if it does."""
        for column in ID_COLUMNS:
            value = row.get(column)
            if isinstance(value, str | int):
                self.ids.append(hash((column, value)))
                self.id_rows.append(number)
                return

    def add(self, group: PromptGroup) -> None:
        """Remember a group."""
        prompt = group.prompt_ids.tobytes()
        completions = tuple(ids.tobytes() for ids in group.completion_ids)
        rest = (group.label, group.ranking)
        self.rows.append(hash((prompt, completions, rest)))
        self.swapped.append(hash((prompt, completions[::-1], rest)) if len(completions) == 2 else 0)

    def duplicates(self) -> np.ndarray:
        """Return the indices of groups that an earlier group equals, int64 (duplicates,)."""
        return _repeated(self.rows)

    def duplicate_ids(self) -> np.ndarray:
        """Return the numbers of rows whose id an earlier row has, int64 (duplicates,)."""
        return np.asarray(self.id_rows, np.int64)[_repeated(self.ids)]

    def contradictions(self) -> np.ndarray:
        """Return the indices of pairs that stand somewhere else the other way round, int64 (contradictions,)."""
        rows, swapped = np.asarray(self.rows, np.int64), np.asarray(self.swapped, np.int64)
        return np.flatnonzero(np.isin(swapped, rows) & (swapped != 0))


def _repeated(hashes: array[int]) -> np.ndarray:
    """Return the indices of values that occurred before, int64."""
    values = np.asarray(hashes, dtype=np.int64)
    _, firsts = np.unique(values, return_index=True)
    return np.setdiff1d(np.arange(len(values)), firsts)


def note_repetitions(report: DataReport, groups: GroupStore, hashes: RowHashes) -> None:
    """Count duplicates and contradictions in the report; they stay in the data."""
    for kind, found in (("duplicate_row", hashes.duplicates()), ("contradictory_pair", hashes.contradictions())):
        _note(report, groups, kind, found)
    for number in hashes.duplicate_ids():
        report.count("duplicate_id", f"{report.source}, row {number}")


def note_shared_prompts(report: DataReport, groups: GroupStore, training: GroupStore) -> None:
    """Count the evaluation groups whose prompt is in the training groups too; they stay in the data."""
    seen = {hash(group.prompt_ids.tobytes()) for group in training}
    shared = [number for number, group in enumerate(groups) if hash(group.prompt_ids.tobytes()) in seen]
    _note(report, groups, "shared_prompt", np.asarray(shared, np.int64))


def _note(report: DataReport, groups: GroupStore, kind: str, found: np.ndarray) -> None:
    if not len(found):
        return
    for number in found[:EXAMPLES_KEPT]:
        group = groups[int(number)]
        report.count(kind, f"{group.source}, row {group.row}")
    report.counts[kind] = len(found)
