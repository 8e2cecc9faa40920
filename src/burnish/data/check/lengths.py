"""Lengths in figures: quantiles, a histogram in powers of two, and whether the better completion is the longer one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Bin:
    """How many lengths lie in [least, most]."""

    least: int
    most: int
    count: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths, all in the same unit."""

    count: int
    total: int
    mean: float
    least: int
    median: float
    p95: float
    p99: float
    most: int
    histogram: list[Bin]
    """Bins [0], [1], [2, 3], [4, 7], … from the first that is not empty to the last."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe_lengths(values: np.ndarray) -> Lengths | None:
    """Describe lengths, int64 (n,) ≥ 0; None where there are none."""
    if not len(values):
        return None
    median, p95, p99 = (float(value) for value in np.percentile(values, [50, 95, 99]))
    return Lengths(
        count=len(values),
        total=int(values.sum()),
        mean=float(values.mean()),
        least=int(values.min()),
        median=median,
        p95=p95,
        p99=p99,
        most=int(values.max()),
        histogram=_histogram(values),
    )


def _histogram(values: np.ndarray) -> list[Bin]:
    exponents = np.frexp(values.astype(np.float64))[1]  # 0 for 0, n for [2^(n-1), 2^n - 1]
    counts = np.bincount(exponents)
    first = int(exponents.min())
    return [
        Bin(0 if n == 0 else 2 ** (n - 1), 2**n - 1, int(count))
        for n, count in enumerate(counts.tolist())
        if n >= first
    ]


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Whether length alone tells the better completion of a pair (of a list: its best and its worst)."""

    pairs: int
    better_is_longer: int
    better_is_shorter: int
    mean_difference: float
    """Length of the better less length of the worse, over all pairs."""

    @property
    def num_unequal(self) -> int:
        return self.better_is_longer + self.better_is_shorter

    @property
    def share(self) -> float | None:
        """Share of pairs with unequal lengths whose better completion is the longer; None where there are none."""
        return self.better_is_longer / self.num_unequal if self.num_unequal else None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}


def length_bias(better: np.ndarray, worse: np.ndarray) -> LengthBias | None:
    """Compare the lengths of pairs, int64 (pairs,) each; None where there are none."""
    if not len(better):
        return None
    difference = better - worse
    return LengthBias(
        pairs=len(difference),
        better_is_longer=int((difference > 0).sum()),
        better_is_shorter=int((difference < 0).sum()),
        mean_difference=float(difference.mean()),
    )
