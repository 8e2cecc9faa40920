"""The groups that an epoch's order begins with, prepared before the rest of their set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from burnish.data.encoders import open_encoder
from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.data.prepare import Preparation
from burnish.data.report import DataReport
from burnish.data.rows import ReadRow, RowSource
from burnish.data.settings import DataSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST_SPARE = 8
"""Rows taken at once beyond those wanted: some may be dropped, and each further look is a pass over the rows."""


def prepare_front(
    rows: RowSource,
    tokenizer: PreTrainedTokenizerBase,
    settings: DataSettings,
    kind: GroupKind,
    *,
    order: np.ndarray,
    wanted: int,
) -> list[PromptGroup]:
    """Turn the first rows of an order into groups, until there are enough, as `prepare_groups` would.

    Args:
        rows: where they come from; each gives one example at most, so that a row's number is its example's.
        tokenizer: fast; with a chat template if rows are conversations.
        settings: as of prepare_groups; what it makes an error is left out here.
        kind: what the method learns from; not "unpaired", which makes two examples of a pair.
        order: (rows,) numbers of all rows, from 0, as an epoch takes them.
        wanted: how many groups; ≥ 1.

    Returns:
        The groups in the order, fewer than `wanted` only where the rows are all there are.
    """
    found: dict[int, PromptGroup] = {}
    tried, size = 0, wanted + max(LEAST_SPARE, wanted // 2)
    while len(found) < wanted and tried < len(order):
        numbers = order[tried : tried + size]
        found |= {group.number: group for group in _prepare_some(rows, tokenizer, settings, kind, numbers)}
        tried, size = tried + size, 4 * size
    return [found[int(number)] for number in order[:tried] if int(number) in found][:wanted]


def _prepare_some(
    rows: RowSource, tokenizer: PreTrainedTokenizerBase, settings: DataSettings, kind: GroupKind, numbers: np.ndarray
) -> list[PromptGroup]:
    """Groups of the rows with these numbers that are used, in the rows' order."""
    chosen = sorted(map(int, numbers))
    source = RowSource(rows.name, rows.fingerprint, lambda: _pick(rows, chosen), len(chosen))
    groups: list[PromptGroup] = []
    work = Preparation(source, settings, kind, DataReport(rows.name))
    with open_encoder(tokenizer, None) as encode:
        work.run(groups.append, encode)
    return [replace(group, number=chosen[group.number]) for group in groups]


def _pick(rows: RowSource, chosen: Sequence[int]) -> Iterator[ReadRow]:
    wanted = set(chosen)
    for number, row in enumerate(rows):
        if number in wanted:
            yield row
        if number == chosen[-1]:
            return
