"""Prompt groups on disk: one Arrow file, written in batches and read through a memory map.

Lengths are read from the columns' offsets, so that planning a run touches no token ids.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from burnish.data.columns import SCHEMA, BatchView, ContentDigest, build_batch
from burnish.data.groups import PromptGroup

GROUPS_PER_BATCH = 1000


class GroupWriter:
    """Writes groups to a file in batches, so that memory stays flat; the file appears when the block ends well.

    Use as a context manager. What is written goes to a temporary file beside `path`, which is synced and renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_groups = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._groups: list[PromptGroup] = []
        self._digest = ContentDigest()

    def __enter__(self) -> GroupWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")
        self._arrow = pa.ipc.new_file(self._file, SCHEMA)
        return self

    def add(self, group: PromptGroup) -> None:
        """Append one group."""
        self._groups.append(group)
        self.num_groups += 1
        if len(self._groups) == GROUPS_PER_BATCH:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._arrow.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._groups:
            batch = build_batch(self._groups)
            self._arrow.write_batch(batch)
            self._digest.update(BatchView(batch))
            self._groups = []

    @property
    def fingerprint(self) -> str:
        """The fingerprint that the store of the file has: known when the block has ended, without reading it again."""
        return self._digest.hexdigest()


class GroupStore(Sequence[PromptGroup]):
    """Prompt groups of an Arrow file or buffer; a group is read when it is asked for."""

    def __init__(self, batches: list[pa.RecordBatch], fingerprint: str | None = None) -> None:
        self._batches = [BatchView(batch) for batch in batches]
        sizes = [batch.num_rows for batch in batches]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._fingerprint = fingerprint
        self.path: Path | None = None
        """The file that the groups are mapped from; None for groups in memory."""

    @classmethod
    def open(cls, path: Path | str, fingerprint: str | None = None) -> GroupStore:
        """Open a file through a memory map.

        Args:
            path: a file written by GroupWriter.
            fingerprint: the content's fingerprint where it is known already.

        Raises:
            OSError: no such file.
            pyarrow.ArrowInvalid: the file is no whole Arrow file.
        """
        store = cls(_read_batches(pa.memory_map(str(path))), fingerprint)
        store.path = Path(path)
        return store

    @classmethod
    def from_groups(cls, groups: Iterable[PromptGroup], path: Path | str | None = None) -> GroupStore:
        """Store groups in a file, or in memory where no path is given."""
        if path is not None:
            with GroupWriter(Path(path)) as writer:
                for group in groups:
                    writer.add(group)
            return cls.open(path, writer.fingerprint)
        listed = list(groups)
        starts = range(0, len(listed), GROUPS_PER_BATCH)
        return cls([build_batch(listed[start : start + GROUPS_PER_BATCH]) for start in starts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> PromptGroup: ...
    @overload
    def __getitem__(self, index: slice) -> list[PromptGroup]: ...
    def __getitem__(self, index: int | slice) -> PromptGroup | list[PromptGroup]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= number < len(self):
            raise IndexError(f"group {index} of {len(self)}")
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._batches[batch].group(number - int(self._starts[batch]))

    def __iter__(self) -> Iterator[PromptGroup]:
        for batch in self._batches:
            for index in range(batch.batch.num_rows):
                yield batch.group(index)

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        """Tokens of each prompt, int64 (groups,)."""
        return self._gather(lambda batch: np.diff(batch.prompt_offsets))

    @cached_property
    def completion_counts(self) -> np.ndarray:
        """How many completions each group has, int64 (groups,)."""
        return self._gather(lambda batch: np.diff(batch.group_offsets))

    @cached_property
    def completion_lengths(self) -> np.ndarray:
        """Tokens of every completion, group after group, int64 (sum of completion_counts,)."""
        return self._gather(lambda batch: np.diff(batch.completion_offsets))

    @cached_property
    def tree_lengths(self) -> np.ndarray:
        """Tokens of each group when its prompt is computed once, int64 (groups,)."""
        return self.prompt_lengths + self._completion_tokens

    @cached_property
    def num_tokens(self) -> np.ndarray:
        """Tokens of each group when its prompt is repeated for each completion, int64 (groups,)."""
        return self.prompt_lengths * self.completion_counts + self._completion_tokens

    @cached_property
    def numbers(self) -> np.ndarray:
        """Place of each group among all examples of its set, used or not, int64 (groups,), ascending."""
        return self._gather(lambda batch: batch.numbers)

    @cached_property
    def num_counted(self) -> np.ndarray:
        """Counted tokens of each group, int64 (groups,)."""
        return self._gather(lambda batch: batch.num_counted)

    @cached_property
    def _completion_tokens(self) -> np.ndarray:
        return self._gather(lambda batch: np.diff(batch.completion_offsets[batch.group_offsets]))

    @cached_property
    def highest_id(self) -> int:
        """Highest token id of all prompts and completions; -1 where there is none."""
        values = (part for batch in self._batches for part in (batch.prompt_values, batch.completion_values))
        return max((int(part.max(initial=-1)) for part in values), default=-1)

    @property
    def max_completions(self) -> int:
        """Completions of the largest group; 0 where there is none."""
        return int(self.completion_counts.max(initial=0))

    @cached_property
    def labels(self) -> np.ndarray:
        """Whether each group's completion is desirable, bool (groups,); False where a group has no label."""
        return self._gather(lambda batch: batch.labels) > 0

    @property
    def has_margin(self) -> bool:
        """Whether any group has a margin."""
        return self.has("margin")

    def has(self, column: str) -> bool:
        """Whether any group has a value in an optional column: margin, label_smoothing, ref_logps, token_weights."""
        return any(batch.batch.column(column).null_count < batch.batch.num_rows for batch in self._batches)

    def all_have(self, column: str) -> bool:
        """Whether every group has a value in an optional column."""
        return all(batch.batch.column(column).null_count == 0 for batch in self._batches)

    @property
    def is_weighted(self) -> bool:
        """Whether any group's weight differs from 1."""
        return any(bool((batch.weights != 1).any()) for batch in self._batches)

    @property
    def total_weight(self) -> float:
        """Sum of all groups' weights."""
        return float(sum(batch.weights.sum() for batch in self._batches))

    @property
    def fingerprint(self) -> str:
        """sha256 of what the groups hold, in order: all but `source`, `row` and `number`, however cut into batches."""
        if self._fingerprint is None:
            self._fingerprint = self._hash()
        return self._fingerprint

    def _hash(self) -> str:
        digest = ContentDigest()
        for batch in self._batches:
            digest.update(batch)
        return digest.hexdigest()

    def _gather(self, read: Any) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(read(batch) for batch in self._batches)]).astype(np.int64)


def _read_batches(source: Any) -> list[pa.RecordBatch]:
    reader = pa.ipc.open_file(source)
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]
