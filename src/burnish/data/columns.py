"""Prompt groups as columns: groups → a record batch, views of its buffers, and the hash of what it holds.

Columns are made of numpy's buffers and viewed as such: pyarrow's own ways from and to lists and arrays (`pa.array`,
`to_numpy`) import pandas, which no one here needs and which took 0.2 to 0.7 s of every start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from burnish.data.groups import PromptGroup

SCHEMA = pa.schema(
    {
        "prompt_ids": pa.list_(pa.int32()),
        "completion_ids": pa.list_(pa.list_(pa.int32())),
        "completion_mask": pa.list_(pa.list_(pa.uint8())),  # bytes, not bits: slices are then views
        "num_counted": pa.int32(),
        "weight": pa.float64(),
        "margin": pa.float64(),
        "label": pa.bool_(),
        "label_smoothing": pa.float64(),
        "ref_logps": pa.list_(pa.float64()),
        "token_weights": pa.list_(pa.list_(pa.float32())),
        "ranking": pa.list_(pa.int32()),
        "source": pa.string(),
        "row": pa.int64(),
        "number": pa.int64(),
    }
)
HASHED = ("margin", "label", "label_smoothing", "ref_logps", "token_weights", "ranking")
"""Columns besides weight, ids and masks that a fingerprint covers."""


def build_batch(groups: Sequence[PromptGroup]) -> pa.RecordBatch:
    """Return groups as one record batch of SCHEMA."""
    masks = [mask for group in groups for mask in group.completion_mask]
    outer = [group.num_completions for group in groups]
    mask_lists = _lists(masks, np.uint8)
    columns = {
        "prompt_ids": _lists([group.prompt_ids for group in groups], np.int32),
        "completion_ids": _nest(_lists([ids for group in groups for ids in group.completion_ids], np.int32), outer),
        "completion_mask": _nest(mask_lists, outer),
        "num_counted": _column(_counted(mask_lists, outer), pa.int32()),
        "weight": _column(np.array([group.weight for group in groups], np.float64), pa.float64()),
        "margin": _optional([group.margin for group in groups], pa.float64()),
        "label": _optional([group.label for group in groups], pa.bool_()),
        "label_smoothing": _optional([group.label_smoothing for group in groups], pa.float64()),
        "ref_logps": _optional_lists([group.ref_logps for group in groups], np.float64),
        "token_weights": _token_weights([group.token_weights for group in groups]),
        "ranking": _lists(_arrays([group.ranking for group in groups], np.int32), np.int32),
        "source": _texts([group.source for group in groups]),
        "row": _column(np.array([group.row for group in groups], np.int64), pa.int64()),
        "number": _column(np.array([group.number for group in groups], np.int64), pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _column(values: np.ndarray, kind: pa.DataType, valid: np.ndarray | None = None) -> pa.Array:
    """Wrap values (entries,) as a column; `valid` is False where an entry is null."""
    content = np.packbits(values, bitorder="little") if pa.types.is_boolean(kind) else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [_bits(valid), pa.py_buffer(content)])


def _bits(valid: np.ndarray | None) -> pa.Buffer | None:
    return None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _optional(values: Sequence[float | bool | None], kind: pa.DataType) -> pa.Array:
    valid = np.array([value is not None for value in values], bool)
    filled = np.array(
        [0 if value is None else value for value in values], bool if pa.types.is_boolean(kind) else np.float64
    )
    return _column(filled, kind, valid)


def _lists(entries: Sequence[np.ndarray], dtype: type[np.generic], valid: np.ndarray | None = None) -> pa.Array:
    """Build a column of lists of numbers."""
    flat = np.concatenate([np.zeros(0, dtype), *entries]).astype(dtype, copy=False)
    values = _column(flat, pa.from_numpy_dtype(flat.dtype))
    return _nest(values, [len(entry) for entry in entries], valid)


def _nest(values: pa.Array, lengths: Sequence[int], valid: np.ndarray | None = None) -> pa.Array:
    """Cut a column into lists of these lengths."""
    buffers = [_bits(valid), pa.py_buffer(_offsets(lengths))]
    return pa.Array.from_buffers(pa.list_(values.type), len(lengths), buffers, children=[values])


def _optional_lists(entries: Sequence[Sequence[float] | None], dtype: type[np.generic]) -> pa.Array:
    valid = np.array([entry is not None for entry in entries], bool)
    return _lists(_arrays(entries, dtype), dtype, valid)


def _arrays(entries: Sequence[Sequence[float] | None], dtype: type[np.generic]) -> list[np.ndarray]:
    nothing = np.zeros(0, dtype)
    return [np.asarray(entry, dtype) if entry else nothing for entry in entries]


def _token_weights(entries: Sequence[Sequence[np.ndarray] | None]) -> pa.Array:
    valid = np.array([entry is not None for entry in entries], bool)
    inner = _lists([array for entry in entries for array in entry or ()], np.float32)
    return _nest(inner, [len(entry or ()) for entry in entries], valid)


def _texts(texts: Sequence[str]) -> pa.Array:
    encoded = [text.encode() for text in texts]
    buffers = [None, pa.py_buffer(_offsets(list(map(len, encoded)))), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int32)


def _counted(masks: pa.Array, completions: Sequence[int]) -> np.ndarray:
    """Count the ones of each group's masks, int32 (groups,)."""
    before = np.concatenate([[0], np.cumsum(numbers(masks.values, np.uint8), dtype=np.int64)])
    borders = numbers(masks.offsets, np.int32)[_offsets(completions)]
    return np.diff(before[borders]).astype(np.int32)


def numbers(column: pa.Array, dtype: type[np.generic]) -> np.ndarray:
    """View a column of numbers without nulls, (entries,); `dtype` is the column's own."""
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.zeros(0, dtype)
    return np.frombuffer(buffer, dtype, len(column), column.offset * np.dtype(dtype).itemsize)


class BatchView:
    """Views of one record batch's buffers."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        prompt, completion = batch.column("prompt_ids"), batch.column("completion_ids")
        self.prompt_offsets = numbers(prompt.offsets, np.int32)
        self.prompt_values = numbers(prompt.values, np.int32)
        self.group_offsets = numbers(completion.offsets, np.int32)
        self.completion_offsets = numbers(completion.values.offsets, np.int32)
        self.completion_values = numbers(completion.values.values, np.int32)
        self.mask_values = numbers(batch.column("completion_mask").values.values, np.uint8)

    @property
    def weights(self) -> np.ndarray:
        """Weight of each group, float64 (groups,)."""
        return numbers(self.batch.column("weight"), np.float64)

    @property
    def numbers(self) -> np.ndarray:
        """Place of each group among all examples of its set, int64 (groups,)."""
        return numbers(self.batch.column("number"), np.int64)

    @property
    def num_counted(self) -> np.ndarray:
        """Counted tokens of each group, int32 (groups,)."""
        return numbers(self.batch.column("num_counted"), np.int32)

    @property
    def labels(self) -> np.ndarray:
        """Desirable or not, bool (groups,); False where a group has no label."""
        return np.array([label is True for label in self.values("label")], bool)

    def values(self, column: str) -> list[Any]:
        """A column's entries as Python objects."""
        entries = self.batch.column(column)
        return [None] * len(entries) if entries.null_count == len(entries) else entries.to_pylist()

    def group(self, index: int) -> PromptGroup:
        """A group, in arrays of its own."""
        prompt = slice(*self.prompt_offsets[index : index + 2])
        first, last = self.group_offsets[index : index + 2]
        parts = [slice(*self.completion_offsets[number : number + 2]) for number in range(first, last)]
        ranking = self._value("ranking", index)
        return PromptGroup(
            prompt_ids=self.prompt_values[prompt].copy(),
            completion_ids=tuple(self.completion_values[part].copy() for part in parts),
            completion_mask=tuple(self.mask_values[part].astype(bool) for part in parts),
            weight=self._value("weight", index),
            margin=self._value("margin", index),
            label=self._value("label", index),
            label_smoothing=self._value("label_smoothing", index),
            ref_logps=None if (logps := self._value("ref_logps", index)) is None else tuple(logps),
            token_weights=self._token_weights(index),
            ranking=tuple(ranking) if ranking else None,
            source=self._value("source", index),
            row=self._value("row", index),
            number=self._value("number", index),
        )

    def _token_weights(self, index: int) -> tuple[np.ndarray, ...] | None:
        weights = self._value("token_weights", index)
        return None if weights is None else tuple(np.asarray(part, dtype=np.float32) for part in weights)

    def _value(self, column: str, index: int) -> Any:
        return self.batch.column(column)[index].as_py()


class ContentDigest:
    """sha256 of what batches hold, in order: all but `source`, `row` and `number`, however cut into batches."""

    def __init__(self) -> None:
        self._digests = [hashlib.sha256() for _ in range(7)]

    def update(self, batch: BatchView) -> None:
        """Add the next batch."""
        flat = (
            np.diff(batch.prompt_offsets),
            batch.prompt_values,
            np.diff(batch.group_offsets),
            np.diff(batch.completion_offsets),
            batch.completion_values,
            batch.mask_values,
        )
        for digest, values in zip(self._digests, flat, strict=False):
            digest.update(np.ascontiguousarray(values).data)
        extras = zip(batch.weights.tolist(), *map(batch.values, HASHED), strict=True)
        self._digests[-1].update("".join(map(repr, extras)).encode())

    def hexdigest(self) -> str:
        """The hash of all batches so far."""
        return hashlib.sha256(b"".join(digest.digest() for digest in self._digests)).hexdigest()
