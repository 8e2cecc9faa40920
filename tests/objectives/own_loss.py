"""A user's own loss, as a file of theirs would hold it."""

from __future__ import annotations

from torch import Tensor

from burnish.objectives.scores import PairScores


def plain_margin(scores: PairScores, *, beta: float) -> Tensor:
    """Push the chosen log-probability above the rejected one by 1/β, without a reference."""
    return (1 - beta * (scores.chosen_logps - scores.rejected_logps)).clamp(min=0)


plain_margin.needs_reference = False  # pyright: ignore[reportFunctionMemberAccess]
