"""How groups become micro-batches and rows: decided before step 1, and made smaller only where memory runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from burnish.batching.layout import row_shape
from burnish.batching.planner import StepPlan, plan_filled_rows, plan_packed_step, plan_step
from burnish.batching.ranks import plan_ranks
from burnish.data.groups import PromptGroup
from burnish.device.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Cut:
    """How groups become rows: decided before step 1 and kept for the whole run."""

    shared: bool
    pad_id: int
    max_tokens: int
    packed: bool = False
    """Whether the shared rows of a micro-batch stand in one row, without padding."""
    row_tokens: int | None = None
    """Most tokens of a padded row that several examples share; None gives each example its own row."""

    def within(self, max_tokens: int) -> Cut:
        """The same cut with at most so many tokens in a micro-batch."""
        row_tokens = None if self.row_tokens is None else min(self.row_tokens, max_tokens)
        return replace(self, max_tokens=min(self.max_tokens, max_tokens), row_tokens=row_tokens)

    def plan(self, indices: Sequence[int], groups: Sequence[PromptGroup], ranks: Ranks | None = None) -> StepPlan:
        """Plan this rank's micro-batches for groups of all ranks, given with their indices in the store."""
        group_of = dict(zip(indices, groups, strict=True))
        if ranks is None or ranks.size == 1:
            return self._plan_rank(group_of, indices)
        tokens = [group.num_tree_tokens if self.shared else group.num_tokens for group in groups]
        return plan_ranks(indices, tokens, partial(self._plan_rank, group_of), ranks.size)[ranks.rank]

    def _plan_rank(self, group_of: Mapping[int, PromptGroup], indices: Sequence[int]) -> StepPlan:
        groups = [group_of[index] for index in indices]
        lengths = [group.num_tree_tokens for group in groups]
        if self.packed:
            return plan_packed_step(indices, lengths, self.max_tokens)
        if self.row_tokens is not None:
            return plan_filled_rows(indices, lengths, self.max_tokens, row_tokens=self.row_tokens)
        shapes = [
            row_shape(len(group.prompt_ids), [len(ids) for ids in group.completion_ids], shared=self.shared)
            for group in groups
        ]
        return plan_step(indices, shapes, self.max_tokens)
