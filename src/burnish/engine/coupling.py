"""Steps whose groups depend on each other: what the losses need of the whole step, before the first backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from burnish.data.groups import PromptGroup
from burnish.engine.method import CoupledMethod, Method, StepPart


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """The coupled groups of one step (or evaluation), and where the step's own groups stand."""

    method: CoupledMethod
    groups: Sequence[PromptGroup]
    """Whose scores are needed first, over all ranks."""
    is_own: bool
    """Whether they are the step's own groups, in its order."""
    places: Mapping[int, int]
    """From a group's index in the store to its place in the step."""

    def rows(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(groups,) int64: places of groups given by their indices in the store."""
        return torch.tensor([self.places[index] for index in indices], dtype=torch.int64, device=device)

    def part(self, value: Any, indices: Sequence[int], device: torch.device) -> StepPart:
        """What the loss of a micro-batch of these groups is told."""
        return StepPart(value, self.rows(indices, device))


def find_coupling(method: Method, indices: Sequence[int], groups: Sequence[PromptGroup]) -> Coupling | None:
    """Ask a method what couples a step; None where nothing does.

    Args:
        method: the method.
        indices: of the step's groups in the store, over all ranks.
        groups: these groups, in the same order.
    """
    if not isinstance(method, CoupledMethod):
        return None
    coupled = method.coupled_groups(groups)
    if not len(coupled):
        return None
    places = {index: place for place, index in enumerate(indices)}
    return Coupling(method, coupled, coupled is groups, places)


class CouplingTable:
    """Rows of the coupled groups, filled in any order and on any rank; no host copy."""

    def __init__(self, num_groups: int) -> None:
        self.num_groups = num_groups
        self._table: Tensor | None = None

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Write (groups, columns) values at (groups,) places, each once."""
        if self._table is None:
            self._table = values.new_zeros(self.num_groups, values.shape[1])
        self._table = self._table.index_copy(0, rows, values.detach())

    def gather(self, reduce: Callable[[Tensor], Tensor]) -> Tensor:
        """(num_groups, columns) over all ranks.

        Args:
            reduce: sums a tensor over ranks; each row is written on one of them and 0 on the others.
        """
        assert self._table is not None
        return reduce(self._table)
