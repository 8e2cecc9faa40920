"""The balancing loss of a mixture-of-experts model: what a step's micro-batches must know of all its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from burnish.objectives.routing import balancing_loss
from burnish.scoring.routing import Routing


@dataclass(slots=True, eq=False)
class RoutingTotal:
    """Sums of routing over the micro-batches of a step or an evaluation, on this rank until `gather`."""

    table: Tensor | None = None

    def add(self, routing: Routing | None, *, is_filler: bool) -> None:
        """Add a micro-batch; a filler's groups are another rank's, and weigh nothing."""
        if routing is None:
            return
        values = routing.as_table() * (0.0 if is_filler else 1.0)
        self.table = values if self.table is None else self.table + values

    def gather(self, reduce: Callable[[Tensor], Tensor]) -> StepRouting | None:
        """The totals over all ranks; None where the model routes nothing."""
        return None if self.table is None else StepRouting(reduce(self.table))


@dataclass(frozen=True, slots=True, eq=False)
class StepRouting:
    """How a whole step was routed."""

    table: Tensor
    """(2 * experts + 1,) assignments, probabilities, rows."""

    def share(self, routing: Routing) -> Tensor:
        """A micro-batch's share of the step's balancing loss, scalar, with gradient."""
        num_experts = len(routing.probabilities)
        return balancing_loss(routing.probabilities, self.table[:num_experts], self.table[-1])

    def whole(self) -> Tensor:
        """The balancing loss of the whole, scalar, no gradient."""
        assignments, probabilities = self.table[:-1].view(2, -1)
        return balancing_loss(probabilities, assignments, self.table[-1])
