"""The one data type of burnish: a prompt with k completions, as token ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Ids = np.ndarray
"""Token ids, shape (tokens,), int32."""

Mask = np.ndarray
"""Which tokens count, shape (tokens,), bool."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptGroup:
    """One prompt and its k completions.

    k is 1 for supervised tuning and unpaired preferences, 2 for pairs (chosen first, rejected second), more for lists.
    `completion_mask[i][t]` is True where token t of completion i counts: what the policy itself says, not other
    people's turns or tool outputs inside a completion.
    """

    prompt_ids: Ids
    completion_ids: tuple[Ids, ...]
    completion_mask: tuple[Mask, ...]
    weight: float = 1.0
    """Multiplies the group's numerator in the loss; ≥ 0."""
    margin: float | None = None
    """How much better the first completion should be, in units of reward (nats); from the row's `margin` column."""
    label: bool | None = None
    """Whether the single completion of an unpaired row is desirable."""
    label_smoothing: float | None = None
    """Probability that the row's labels are flipped, in [0, 0.5); replaces the setting."""
    ref_logps: tuple[float, ...] | None = None
    """log π_ref of each completion, nats, where the row brings them."""
    token_weights: tuple[np.ndarray, ...] | None = None
    """Weight of each token of each completion, float32 ≥ 0; None weighs each 1."""
    ranking: tuple[int, ...] | None = None
    """Rank of each completion, 0 is best; None where the order of the completions is the ranking."""
    source: str = ""
    """The file, folder or hub id that the row came from."""
    row: int = 0
    """The row's place in its source: the line number (from 1) of a JSON Lines file, else the row's number from 1."""
    number: int = 0
    """The group's place among all examples of its set (`DataReport.examples_read`), used or not, from 0."""

    @property
    def num_completions(self) -> int:
        return len(self.completion_ids)

    def counted_weight(self, completion: int) -> float:
        """Counted tokens of a completion, each as much as its weight."""
        mask = self.completion_mask[completion]
        if self.token_weights is None:
            return float(mask.sum())
        return float(self.token_weights[completion][mask].sum(dtype=np.float64))

    @property
    def num_counted_tokens(self) -> int:
        return sum(int(mask.sum()) for mask in self.completion_mask)

    @property
    def num_tree_tokens(self) -> int:
        """Tokens of the group when its prompt is computed once."""
        return len(self.prompt_ids) + sum(len(ids) for ids in self.completion_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens when the prompt is repeated for each completion, which is how TRL counts."""
        return len(self.prompt_ids) * self.num_completions + sum(len(ids) for ids in self.completion_ids)
