"""Which groups an optimizer step takes: a function of seed, epoch and step, with no state to lose.

An epoch's order is drawn over all examples of a set, used or not, and those that gave no group are then left out: which
examples come first is known before any of them is tokenised. Where each gave a group, that is an order of the groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Numbering:
    """Where groups stand among all examples of their set, of which some gave no group."""

    numbers: np.ndarray
    """Place of each group, from 0; shape (groups,), int64, ascending."""
    num_examples: int
    """Examples of the set, used or not; ≥ groups."""


@dataclass(frozen=True, slots=True)
class StepSampler:
    """Cuts epochs of `num_groups` groups into steps of `batch_size`; the last short step of an epoch keeps its rows."""

    num_groups: int
    batch_size: int
    seed: int
    strategy: Literal["random", "sequential"] = "random"
    numbering: Numbering | None = None
    """None where every example gave a group."""

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_groups / self.batch_size)

    def groups_of(self, step: int) -> np.ndarray:
        """Give the indices of the groups of optimizer step `step` (from 0), in order; shape (groups,), int64."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(self.num_groups, self.seed, epoch, self.strategy, self.numbering)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def epoch_at(self, steps_done: int) -> float:
        """How many epochs `steps_done` whole steps are; a short last step makes its epoch whole."""
        epoch, position = divmod(steps_done, self.steps_per_epoch)
        return epoch + min(position * self.batch_size / self.num_groups, 1.0)


@lru_cache(maxsize=2)
def epoch_order(num_groups: int, seed: int, epoch: int, strategy: str, numbering: Numbering | None) -> np.ndarray:
    """Order of the groups in an epoch; shape (num_groups,), int64. Equal on every rank and every resume."""
    if numbering is None:
        return draw_order(num_groups, seed, epoch, strategy)
    index_of = np.full(numbering.num_examples, -1, np.int64)
    index_of[numbering.numbers] = np.arange(num_groups)
    drawn = index_of[draw_order(numbering.num_examples, seed, epoch, strategy)]
    return drawn[drawn >= 0]


def draw_order(num_examples: int, seed: int, epoch: int, strategy: str) -> np.ndarray:
    """Order of all examples of a set in an epoch, used or not; shape (num_examples,), int64."""
    if strategy == "sequential":
        return np.arange(num_examples)
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_examples)
