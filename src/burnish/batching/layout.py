"""Prompt groups as tensors: tree rows, in which a prompt stands once before all of its completions.

A shared row is `[prompt | completion 1 | … | completion k]`. Positions restart after the prompt for each completion,
and a completion sees the prompt and itself. A separate row is `[prompt | completion i]`. Packed, the shared rows of all
groups stand one behind the other in a single row without padding; or several examples of one completion share a row,
each a segment that sees only itself. All give the same counted tokens in the same order, so nothing behind the layout
knows which one was used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from burnish.batching.planner import RowShape
from burnish.data.groups import PromptGroup

PADDING = -1
PROMPT = 0


@dataclass(frozen=True, slots=True)
class TreeShape:
    """Lengths of one group in a packed row, in tokens."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return self.prompt + sum(self.completions)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Rows of token ids, and where the counted tokens are in them.

    Counted tokens are ordered by group, completion and position. `counted` below is their number.
    """

    input_ids: Tensor
    """(rows, length) int64."""
    position_ids: Tensor
    """(rows, length) int64."""
    segment_ids: Tensor
    """(rows, length) int64: -1 padding, 0 prompt, i ≥ 1 the i-th completion of the row."""
    predictors: Tensor
    """(counted,) int64: flat index into rows x length of the position that predicts each counted token."""
    targets: Tensor
    """(counted,) int64: the counted tokens' ids."""
    completion_of: Tensor
    """(counted,) int64: which completion of the micro-batch each counted token belongs to."""
    offset_of: Tensor
    """(counted,) int64: the token's place among its completion's counted tokens, from 0."""
    num_counted: Tensor
    """(completions,) float32: counted tokens of each completion."""
    weight: Tensor
    """(groups,) float32: row weights."""
    margin: Tensor | None
    """(groups,) float32: row margins, where the data has them."""
    is_desirable: Tensor | None
    """(groups,) float32: 1 where the single completion is desirable, else 0; None where rows have no label."""
    groups: tuple[PromptGroup, ...]
    """The groups themselves, on the host: for columns that few rows have."""
    ends: Tensor
    """(completions,) int64: flat index of the last token of prompt plus completion that is not the padding token."""
    num_completions: int
    max_counted: int
    """Most counted tokens of any completion: a host number, so that no shape depends on device values."""
    num_tokens: int
    """Tokens with the prompt once a completion and no padding (TRL's count)."""
    num_computed_tokens: int
    """Tokens of the rows without padding."""
    is_shared: bool
    """Whether rows hold more than one completion, so that each sees only a part of its row."""
    trees: tuple[TreeShape, ...] | None = None
    """The groups of a packed row, in order; None where rows are padded."""
    has_segments: bool = False
    """Whether rows hold several examples of one completion, each with its prompt in its own segment."""

    def to(self, device: torch.device) -> MicroBatch:
        """Copy the tensors to a device."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(slots=True)
class _Row:
    """One row while it is being laid out; offsets are within the row."""

    ids: list[np.ndarray]
    positions: list[np.ndarray]
    segments: list[np.ndarray]
    length: int = 0

    def append(self, ids: np.ndarray, *, first_position: int, segment: int) -> int:
        start = self.length
        self.ids.append(ids)
        self.positions.append(np.arange(first_position, first_position + len(ids)))
        self.segments.append(np.full(len(ids), segment))
        self.length += len(ids)
        return start


class _Counted(NamedTuple):
    """The counted tokens of one completion, while rows are laid out."""

    row: int
    predictors: np.ndarray
    """Offsets within the row."""
    targets: np.ndarray
    end: int
    """Offset of the last token that is not the padding token."""


def row_shape(prompt_length: int, completion_lengths: Sequence[int], *, shared: bool) -> RowShape:
    """Rows and longest row that a group occupies."""
    if shared:
        return RowShape(1, prompt_length + sum(completion_lengths))
    return RowShape(len(completion_lengths), prompt_length + max(completion_lengths))


def lay_out(
    groups: Sequence[PromptGroup],
    *,
    shared: bool,
    pad_id: int,
    packed: bool = False,
    row_sizes: Sequence[int] | None = None,
) -> MicroBatch:
    """Build the tensors of a micro-batch.

    Args:
        groups: the groups, all computed together; at least one.
        shared: whether a group's completions share one row and one prompt.
        pad_id: token id that fills rows up to the longest.
        packed: put all shared rows into one; the model's attention must take its groups apart.
        row_sizes: how many of the groups, in order, each row holds as segments, all of one completion; None is off.
    """
    rows: list[_Row] = []
    counted: list[_Counted] = []
    shared = shared and (packed or any(group.num_completions > 1 for group in groups))
    if row_sizes is not None:
        counted = _add_segments(rows, groups, row_sizes, pad_id)
    else:
        for group in groups:
            counted.extend(_add_group(rows, group, pad_id, shared=shared))
    if packed:
        rows, counted = _pack(rows, counted)
    length = max(row.length for row in rows)
    sizes = [len(each.targets) for each in counted]
    return MicroBatch(
        input_ids=_stack([row.ids for row in rows], length, pad_id),
        position_ids=_stack([row.positions for row in rows], length, 0),
        segment_ids=_stack([row.segments for row in rows], length, PADDING),
        predictors=_concatenate([each.row * length + each.predictors for each in counted]),
        targets=_concatenate([each.targets for each in counted]),
        completion_of=torch.from_numpy(np.repeat(np.arange(len(counted)), sizes)),
        offset_of=_concatenate([np.arange(size) for size in sizes]),
        num_counted=torch.tensor(sizes, dtype=torch.float32),
        weight=torch.tensor([group.weight for group in groups], dtype=torch.float32),
        margin=_margins(groups),
        is_desirable=_labels(groups),
        groups=tuple(groups),
        ends=torch.tensor([each.row * length + each.end for each in counted], dtype=torch.int64),
        num_completions=len(counted),
        max_counted=max(sizes),
        num_tokens=sum(group.num_tokens for group in groups),
        num_computed_tokens=sum(row.length for row in rows),
        is_shared=shared or row_sizes is not None,
        trees=tuple(map(tree_shape, groups)) if packed else None,
        has_segments=row_sizes is not None,
    )


def prompt_tokens(batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Where the prompts' own tokens are, each prompt once, from its second token on: nothing predicts the first.

    Returns:
        On the device, (prompt tokens,) int64 each: the flat index into rows x length that predicts a token, its id, and
        its slot in a table of (groups, length of a row).
    """
    length = batch.input_ids.shape[1]
    predictors: list[np.ndarray] = []
    slots: list[np.ndarray] = []
    start = 0
    for number, group in enumerate(batch.groups):
        places = np.arange(max(0, len(group.prompt_ids) - 1))
        predictors.append(start + places)
        slots.append(number * length + places)
        if batch.trees is not None:
            start += batch.trees[number].num_tokens
        else:
            start += length * (1 if batch.is_shared else group.num_completions)
    device = batch.input_ids.device
    targets = _concatenate([group.prompt_ids[1:] for group in batch.groups])
    return _concatenate(predictors).to(device), targets.to(device), _concatenate(slots).to(device)


def token_copies(batch: MicroBatch) -> Tensor:
    """(rows, length) float32: how often each token stands in rows of one completion; 0 for padding."""
    segments = batch.segment_ids
    copies = (segments != PADDING).float()
    if not batch.is_shared or batch.has_segments:
        return copies
    counts = torch.tensor([float(group.num_completions) for group in batch.groups])
    if batch.trees is None:
        of_prompts = counts[:, None]
    else:
        of_prompts = counts.repeat_interleave(torch.tensor([tree.num_tokens for tree in batch.trees]))[None]
    return torch.where(segments == PROMPT, of_prompts.to(segments.device), copies)


def tree_shape(group: PromptGroup) -> TreeShape:
    """Lengths of a group."""
    return TreeShape(len(group.prompt_ids), tuple(len(ids) for ids in group.completion_ids))


def _pack(rows: list[_Row], counted: list[_Counted]) -> tuple[list[_Row], list[_Counted]]:
    """Put rows one behind the other into a single one."""
    starts = np.cumsum([0, *(row.length for row in rows)])
    whole = _Row(
        ids=[part for row in rows for part in row.ids],
        positions=[part for row in rows for part in row.positions],
        segments=[part for row in rows for part in row.segments],
        length=int(starts[-1]),
    )
    return [whole], [
        _Counted(0, starts[row] + predictors, targets, int(starts[row]) + end)
        for row, predictors, targets, end in counted
    ]


def _add_group(rows: list[_Row], group: PromptGroup, pad_id: int, *, shared: bool) -> list[_Counted]:
    """Append a group's rows; give the counted tokens of each completion."""
    counted: list[_Counted] = []
    prompt_length = len(group.prompt_ids)
    row: _Row | None = None
    for number, (ids, mask) in enumerate(zip(group.completion_ids, group.completion_mask, strict=True)):
        if row is None or not shared:
            row = _Row([], [], [])
            row.append(group.prompt_ids, first_position=0, segment=PROMPT)
            rows.append(row)
        start = row.append(ids, first_position=prompt_length, segment=number + 1 if shared else 1)
        predictors = np.arange(start - 1, start + len(ids) - 1)
        predictors[:1] = prompt_length - 1  # the prompt's end predicts the first token of every completion
        counts = mask if prompt_length else mask & (np.arange(len(ids)) > 0)  # nothing predicts a text's first token
        said = np.flatnonzero(ids != pad_id)
        end = start + int(said[-1]) if len(said) else _last_other(group.prompt_ids, pad_id)
        counted.append(_Counted(len(rows) - 1, predictors[counts], ids[counts], end))
    return counted


def _add_segments(
    rows: list[_Row], groups: Sequence[PromptGroup], row_sizes: Sequence[int], pad_id: int
) -> list[_Counted]:
    """Append rows of several examples; give each example's counted tokens."""
    counted: list[_Counted] = []
    remaining = iter(groups)
    for size in row_sizes:
        row = _Row([], [], [])
        for segment, group in enumerate(islice(remaining, size), start=1):
            (ids,), (mask,) = group.completion_ids, group.completion_mask
            whole = np.concatenate([group.prompt_ids, ids])
            start = row.append(whole, first_position=0, segment=segment)
            first = start + len(group.prompt_ids)
            predictors = np.arange(first - 1, first + len(ids) - 1)
            counts = mask if len(group.prompt_ids) else mask & (np.arange(len(ids)) > 0)
            end = start + _last_other(whole, pad_id)
            counted.append(_Counted(len(rows), predictors[counts], ids[counts], end))
        rows.append(row)
    return counted


def _last_other(ids: np.ndarray, pad_id: int) -> int:
    """Place of the last token that is not the padding token; 0 where there is none."""
    others = np.flatnonzero(ids != pad_id)
    return int(others[-1]) if len(others) else 0


def _stack(rows: list[list[np.ndarray]], length: int, fill: int) -> Tensor:
    stacked = np.full((len(rows), length), fill, dtype=np.int64)
    for place, parts in zip(stacked, rows, strict=True):
        joined = np.concatenate(parts)
        place[: len(joined)] = joined
    return torch.from_numpy(stacked)


def _concatenate(parts: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


def _margins(groups: Sequence[PromptGroup]) -> Tensor | None:
    if all(group.margin is None for group in groups):
        return None
    return torch.tensor([group.margin or 0.0 for group in groups], dtype=torch.float32)


def _labels(groups: Sequence[PromptGroup]) -> Tensor | None:
    if any(group.label is None for group in groups):
        return None
    return torch.tensor([bool(group.label) for group in groups], dtype=torch.float32)
