"""Attention masks of tree rows: a completion sees the prompt and itself, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from burnish.batching.layout import PADDING, PROMPT


def tree_mask(segment_ids: Tensor, position_ids: Tensor, *, window: int | None = None) -> Tensor:
    """Which key each query sees.

    Padding sees only itself, since a query that sees nothing gives NaN.

    Args:
        segment_ids: (rows, length): -1 padding, 0 prompt, i ≥ 1 the i-th completion.
        position_ids: (rows, length).
        window: a query sees keys less than so many positions back (positions, not row offsets); None sees all.

    Returns:
        (rows, 1, length, length) bool, True where the query (third axis) sees the key (fourth).
    """
    length = segment_ids.shape[1]
    query, key = segment_ids[:, :, None], segment_ids[:, None, :]
    offsets = torch.arange(length, device=segment_ids.device)
    visible = (offsets[:, None] >= offsets[None, :]) & ((key == PROMPT) | (key == query)) & (query != PADDING)
    if window is not None:
        visible = visible & (position_ids[:, :, None] - position_ids[:, None, :] < window)
    return (visible | torch.eye(length, dtype=torch.bool, device=segment_ids.device))[:, None]


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a boolean mask into one that is added to attention scores: 0 where seen, the dtype's least elsewhere."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
