"""The benchmark's figures: medians of all turns and their ratios, the equality of both sides, and the table of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matrix_products import ModelShape, PairLengths, useful_operations
from parts import DATA, Part
from verdict import Comparison, compare_preparation, compare_training

GIB = 2**30
Turns = dict[str, list[dict[str, Any]]]
"""Side → what each of its turns measured."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    part: str
    name: str
    data: str
    unit: str
    trl: float | None
    burnish: float
    better: float | None
    """How many times better burnish is; of memory, its share of TRL's."""
    goal: float | None
    trl_turns: list[float]
    burnish_turns: list[float]
    lower_is_better: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        value = self.burnish if self.unit == "share" else self.better
        if self.goal is None or value is None:
            return None
        return value <= self.goal if self.lower_is_better else value >= self.goal


GOALS: dict[tuple[str, str], float] = {
    ("first epoch, fp32", "long"): 5.0,
    ("first epoch, fp32", "gsm8k"): 2.5,
    ("later epochs, fp32", "long"): 6.5,
    ("later epochs, fp32", "gsm8k"): 3.2,
    ("first epoch, bf16", "long"): 6.0,
    ("first epoch, bf16", "gsm8k"): 3.5,
    ("evaluation, first", "long"): 2.5,
    ("evaluation, first", "gsm8k"): 2.0,
    ("evaluation, repeated", "long"): 4.5,
    ("evaluation, repeated", "gsm8k"): 3.5,
    ("preparation with fastokens", "long"): 10.0,
    ("preparation with fastokens", "gsm8k"): 10.0,
    ("preparation without", "long"): 4.0,
    ("preparation without", "gsm8k"): 4.0,
    ("peak memory, fp32", "long"): 0.5,
    ("peak memory, fp32", "gsm8k"): 0.6,
    ("useful share, first epoch, fp32", "long"): 0.7,
    ("useful share, first epoch, fp32", "gsm8k"): 0.7,
}
"""(figure, data) → what it should reach: times better, of memory the greatest share, of useful work the least share."""


def figures_of(part: Part, turns: Turns, pairs: int, shape: ModelShape) -> list[Figure]:
    """Return a part's figures."""
    if part.kind == "prepare":
        return [
            _speed(part, "preparation with fastokens", turns, "burnish"),
            _speed(part, "preparation without", turns, "burnish-plain"),
        ]
    suffix = "large vocabulary" if part.large_vocabulary else part.precision
    made = [_times(part, f"first epoch, {suffix}", turns, lambda turn: turn["steps"][0]["seconds"] / pairs)]
    if part.epochs > 1:
        made.append(_times(part, f"later epochs, {suffix}", turns, lambda turn: _later_seconds(turn) / pairs))
    if part.evaluate:
        for name, number in (("first", 0), ("repeated", -1)):
            made.append(
                _times(part, f"evaluation, {name}", turns, lambda t, n=number: t["evals"][n]["eval_runtime"] / pairs)
            )
    made.append(_memory(part, f"peak memory, {suffix}", turns))
    if part.epochs > 1:
        made.append(_times(part, f"start-up, {suffix}", turns, lambda turn: turn["startup_seconds"], unit="s"))
    return [*made, *_shares(part, suffix, turns, shape)]


def _later_seconds(turn: dict[str, Any]) -> float:
    return statistics.median(step["seconds"] for step in turn["steps"][1:])


def _times(
    part: Part, name: str, turns: Turns, read: Callable[[dict[str, Any]], float], unit: str = "s a pair"
) -> Figure:
    trl, ours = ([read(turn) for turn in turns[side]] for side in ("TRL", "burnish"))
    return _figure(part, name, unit, trl, ours, better=statistics.median(trl) / statistics.median(ours))


def _speed(part: Part, name: str, turns: Turns, side: str) -> Figure:
    trl, ours = ([turn["pairs"] / turn["seconds"] for turn in turns[of]] for of in ("TRL", side))
    return _figure(part, name, "pairs/s", trl, ours, better=statistics.median(ours) / statistics.median(trl))


def _memory(part: Part, name: str, turns: Turns) -> Figure:
    trl, ours = ([turn["peak_rss_bytes"] / GIB for turn in turns[side]] for side in ("TRL", "burnish"))
    share = statistics.median(ours) / statistics.median(trl)
    return _figure(part, name, "GiB", trl, ours, better=share, lower_is_better=True)


def _shares(part: Part, suffix: str, turns: Turns, shape: ModelShape) -> list[Figure]:
    """Useful operations over what the matrix products of the same round could have done in the same time."""
    lengths = [PairLengths(prompt, tuple(completions)) for prompt, completions in turns["rate"][0]["lengths"]]
    made: list[Figure] = []
    for name, passes, read in (
        ("first epoch", 1, lambda turn: turn["steps"][0]["seconds"]),
        ("later epochs", 0, _later_seconds if part.epochs > 1 else None),
    ):
        if read is None:
            continue
        trl, ours = (
            [
                useful_operations(shape, lengths, reference_passes=passes if side == "burnish" else 1)
                / (read(turn) * rate["operations_per_second"])
                for turn, rate in zip(turns[side], turns["rate"], strict=True)
            ]
            for side in ("TRL", "burnish")
        )
        made.append(_figure(part, f"useful share, {name}, {suffix}", "share", trl, ours, better=None))
    return made


def _figure(
    part: Part, name: str, unit: str, trl: list[float], ours: list[float], *, better: float | None, **options: Any
) -> Figure:
    median = statistics.median
    goal = GOALS.get((name, part.data))
    return Figure(part.name, name, part.data, unit, median(trl), median(ours), better, goal, trl, ours, **options)


def compare_part(part: Part, turns: Turns) -> list[Comparison]:
    """Compare both sides in every round."""
    compared: list[Comparison] = []
    if part.kind == "prepare":
        for side in ("burnish", "burnish-plain"):
            for trl, ours in zip(turns["TRL"], turns[side], strict=True):
                compared += compare_preparation(f"{part.name}, {side}", trl, ours)
        return compared
    for number, (trl, ours) in enumerate(zip(turns["TRL"], turns["burnish"], strict=True), start=1):
        name = part.name if len(turns["TRL"]) == 1 else f"{part.name}, round {number}"
        compared += compare_training(name, part.precision, trl, ours)
    return compared


def rates_in_words(turns: dict[str, Turns]) -> str:
    """Return the median rate of matrix products in each part that measured it, in 10⁹ operations/s."""
    medians = {
        part: statistics.median(turn["operations_per_second"] for turn in named["rate"])
        for part, named in turns.items()
        if named.get("rate")
    }
    return ", ".join(f"{part} {rate / 1e9:,.0f}" for part, rate in medians.items()) or "not measured"


def render(figures: Sequence[Figure], comparisons: Sequence[Comparison], about: Sequence[str]) -> str:
    """Return the report in Markdown."""
    wrong = {comparison.part.split(",")[0] for comparison in comparisons if not comparison.same}
    lines = [*(f"{line}  " for line in about), ""]
    lines += ["| figure | pairs | TRL 1.16 | burnish | burnish is | goal |", "|---|---|---|---|---|---|"]
    lines += [_row(figure, wrong=figure.part in wrong) for figure in figures]
    lines += ["", _equality_in_words(comparisons), ""]
    lines += ["| part | when | value | TRL | burnish | difference | allowed | |", "|---|---|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(_comparison_row(one) for one in _worst(comparisons))])


def _row(figure: Figure, *, wrong: bool) -> str:
    number = "{:,.0f}" if figure.unit == "pairs/s" else "{:.2f}" if figure.unit in ("share", "GiB") else "{:.3g}"
    trl, ours = (number.format(value) for value in (figure.trl, figure.burnish))
    unit = "" if figure.unit == "share" else f" {figure.unit}"
    times = "" if figure.better is None else f"{figure.better:.2f} ×"
    if wrong:
        times = "**NOT THE SAME WORK**"
    mark = {None: "", True: " ✓", False: " ✗"}[None if wrong else figure.reached]
    sign = "≤" if figure.lower_is_better else "≥"
    goal = "" if figure.goal is None else f"{sign} {figure.goal:g}{mark}"
    return f"| {figure.name} | {DATA[figure.data]} | {trl}{unit} | {ours}{unit} | {times} | {goal} |"


def _equality_in_words(comparisons: Sequence[Comparison]) -> str:
    wrong = sum(not comparison.same for comparison in comparisons)
    if wrong:
        return f"**NOT THE SAME WORK: {wrong} of {len(comparisons)} values differ by more than is allowed.**"
    return f"The same work: all {len(comparisons)} values of both sides agree. The largest difference of each kind:"


def _worst(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return all that differ, and of the rest the largest difference for each part, place and column."""
    kept: dict[tuple[str, str, str], Comparison] = {}
    for one in comparisons:
        key = (one.part.split(", round")[0], one.place, one.column)
        if key not in kept or one.difference / (one.tolerance or 1) > kept[key].difference / (kept[key].tolerance or 1):
            kept[key] = one
    return list(kept.values())


def _comparison_row(one: Comparison) -> str:
    mark = "same" if one.same else "**DIFFERS**"
    values = " | ".join(f"{value:.6g}" for value in (one.trl, one.burnish))
    part = one.part.split(", round")[0]
    return f"| {part} | {one.place} | {one.column} | {values} | {one.difference:.1e} | {one.tolerance:.0e} | {mark} |"


def as_json(
    figures: Sequence[Figure], comparisons: Sequence[Comparison], about: Sequence[str], turns: dict[str, Turns]
) -> dict[str, Any]:
    """Return everything that was measured."""
    versions = {side: of[0]["versions"] for named in turns.values() for side, of in named.items() if of}
    return {
        "about": list(about),
        "same": all(comparison.same for comparison in comparisons),
        "versions": versions,
        "figures": [asdict(figure) | {"reached": figure.reached} for figure in figures],
        "equality": [asdict(one) | {"same": one.same} for one in comparisons],
        "operations_per_second": {
            part: [turn["operations_per_second"] for turn in named["rate"]]
            for part, named in turns.items()
            if "rate" in named
        },
    }
