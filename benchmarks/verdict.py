"""Whether both sides did the same: losses, log-probabilities and gradient norms side by side.

A speed-up that changes the update shows here, and makes the benchmark fail.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"loss": 1e-4, "grad_norm": 2e-4, "logps": 2e-5},
    "bf16": {"loss": 2e-2, "grad_norm": 2e-2, "logps": 4e-3},
}
"""Greatest relative difference by precision; of a loss, absolute (it is about log 2).

In bf16 a completion's log-probability is off from float32's by half a nat, whoever computes it (docs/performance.md
has the figures), so that two means over 16 pairs of 170 nats a completion differ by 1.7e-3 (one standard deviation).
"""
STEP_COLUMNS = ("loss", "grad_norm", "logps/chosen", "logps/rejected")
EVAL_COLUMNS = ("eval_loss", "eval_logps/chosen", "eval_logps/rejected")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One value of both sides."""

    part: str
    place: str
    """Which step or evaluation."""
    column: str
    trl: float
    burnish: float
    difference: float
    tolerance: float

    @property
    def same(self) -> bool:
        """Whether the difference is within the tolerance; nan never is."""
        return self.difference <= self.tolerance


def compare_training(part: str, precision: str, trl: dict[str, Any], burnish: dict[str, Any]) -> list[Comparison]:
    """Compare what both sides logged at each step and each evaluation.

    Raises:
        ValueError: they did not do as many.
    """
    compared: list[Comparison] = []
    for key, word, columns in (("steps", "step", STEP_COLUMNS), ("evals", "evaluation", EVAL_COLUMNS)):
        if len(trl[key]) != len(burnish[key]):
            raise ValueError(f"{part}: TRL logged {len(trl[key])} {key} and burnish {len(burnish[key])}")
        for number, (theirs, ours) in enumerate(zip(trl[key], burnish[key], strict=True), start=1):
            compared += _compare_record(part, f"{word} {number}", precision, columns, theirs, ours)
    return compared


def _compare_record(
    part: str, place: str, precision: str, columns: tuple[str, ...], trl: dict[str, Any], burnish: dict[str, Any]
) -> Iterator[Comparison]:
    for column in columns:
        kind = column.removeprefix("eval_").split("/")[0]
        theirs, ours = float(trl[column]), float(burnish[column])
        scale = 1.0 if kind == "loss" else max(abs(theirs), 1e-12)
        difference = abs(theirs - ours) / scale
        if math.isnan(difference):
            difference = math.inf
        yield Comparison(part, place, column, theirs, ours, difference, TOLERANCES[precision][kind])


def compare_preparation(part: str, trl: dict[str, Any], burnish: dict[str, Any]) -> list[Comparison]:
    """Compare the number of pairs and the digest of all ids."""
    pairs = abs(trl["pairs"] - burnish["pairs"])
    ids = 0.0 if trl["ids"] == burnish["ids"] else math.inf
    return [
        Comparison(part, "preparation", "pairs", trl["pairs"], burnish["pairs"], pairs, 0.0),
        Comparison(part, "preparation", "ids", 0.0, ids, ids, 0.0),
    ]
