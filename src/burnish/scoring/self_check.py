"""The check before step 1 that tree rows and the gathered head say what the model itself says.

The first micro-batch's shortest and longest groups, cut to a few dozen tokens where attention has no window, are
scored in float32, without dropout: separate rows through the model's own forward, and tree rows through the gathered
head, packed where the device and the architecture allow it. Where the two agree, both tree rows and head are right, and
that is all: every start pays for these passes. Where they do not, further passes find out which is wrong. Wrong packed
rows get a mask; where tree rows differ with it too, rows hold one completion each; where the gathered head differs,
all logits are computed. Each costs time and changes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from burnish.batching.layout import lay_out
from burnish.data.groups import PromptGroup
from burnish.scoring.architecture import PACKED_WITHOUT_CHECK
from burnish.scoring.scorer import HeadPath, Scorer

TOLERANCE_NATS = 2e-3
"""Most that one token's log-probability may differ; float32 rounding stays below 1e-4 on the models tried."""


CHECKED_TOKENS = 48
"""Most tokens of a prompt, and of a completion, in the check."""


@dataclass(frozen=True, slots=True)
class ScoringChoice:
    """How rows are laid out and where logits come from, and why."""

    shared: bool
    head_path: HeadPath
    reason: str
    packed: bool = False
    """Whether shared rows stand in one row without padding, their attention computed group by group."""


def choose_scoring(
    scorer: Scorer, groups: Sequence[PromptGroup], *, pad_id: int, check: bool = True, fills_rows: bool = False
) -> ScoringChoice:
    """Decide between tree rows and separate rows, from what is known and from a comparison.

    The caller turns dropout off (eval mode) and autocast off, and keeps the random state.

    Args:
        scorer: of the policy.
        groups: the first micro-batch's groups.
        pad_id: token id of padding.
        check: False trusts the table alone.
        fills_rows: whether several examples are to share a row, instead of several completions.
    """
    known = scorer.architecture.unshareable
    if not check:
        reason = known or "as the architecture allows; not checked (self_check is off)"
        packed = _may_pack(scorer) and scorer.model_type in PACKED_WITHOUT_CHECK
        return ScoringChoice(not known, HeadPath.GATHERED, reason, packed)
    by_size = sorted(groups, key=lambda group: group.num_tree_tokens)
    sample = [by_size[0], by_size[-1]] if len(by_size) > 1 else by_size
    if scorer.architecture.window is None:
        sample = [_cut(group) for group in sample]
    score = partial(_score, scorer, sample, pad_id=pad_id)
    plain = score(shared=False, head_path=HeadPath.WHOLE)
    tree_error = math.inf
    if not known and _may_pack(scorer):
        tree_error = _largest_difference(score(shared=True, packed=True), plain)
        if tree_error <= TOLERANCE_NATS:
            return ScoringChoice(True, HeadPath.GATHERED, _agreement(tree_error), packed=True)
    if not known:
        tree_error = _largest_difference(score(shared=True, row_sizes=[len(sample)] if fills_rows else None), plain)
        if tree_error <= TOLERANCE_NATS:
            return ScoringChoice(True, HeadPath.GATHERED, _agreement(tree_error))
    head_error = _largest_difference(score(shared=False), plain)
    if not head_error <= TOLERANCE_NATS:
        reason = f"log-probabilities of counted positions differ from the model's own by {head_error:.2g} nats"
        return ScoringChoice(False, HeadPath.WHOLE, reason)
    reason = f"sharing a {'row' if fills_rows else 'prompt'} changes log-probabilities by {tree_error:.2g} nats"
    return ScoringChoice(False, HeadPath.GATHERED, known or reason)


def _agreement(error: float) -> str:
    return f"checked against separate rows: {error:.1g} nats apart at most"


def _cut(group: PromptGroup) -> PromptGroup:
    """The beginning of a prompt with the beginnings of its completions, of which every token counts.

    What the check looks for (positions, visible keys, head) shows in a few tokens; every start pays for the check.
    """
    completions = tuple(ids[:CHECKED_TOKENS] for ids in group.completion_ids)
    return replace(
        group,
        prompt_ids=group.prompt_ids[:CHECKED_TOKENS],
        completion_ids=completions,
        completion_mask=tuple(np.ones(len(ids), dtype=bool) for ids in completions),
    )


def _may_pack(scorer: Scorer) -> bool:
    """On the CPU, calls for each group cost little; an accelerator would wait for each."""
    return scorer.architecture.packable and next(scorer.parameters()).device.type == "cpu"


@torch.no_grad()
def _score(
    scorer: Scorer,
    groups: Sequence[PromptGroup],
    *,
    shared: bool,
    pad_id: int,
    head_path: HeadPath = HeadPath.GATHERED,
    packed: bool = False,
    row_sizes: Sequence[int] | None = None,
) -> torch.Tensor:
    device = next(scorer.parameters()).device
    batch = lay_out(groups, shared=shared, pad_id=pad_id, packed=packed, row_sizes=row_sizes).to(device)
    before, scorer.head_path = scorer.head_path, head_path
    try:
        scores = scorer(batch)
        return scores.token_logps if scores.rewards is None else scores.rewards
    finally:
        scorer.head_path = before


def _largest_difference(scores: torch.Tensor, expected: torch.Tensor) -> float:
    return (scores - expected).abs().max().item()
