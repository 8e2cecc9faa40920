"""The preference health line: is training going astray in a way that the loss does not show?

Judged at logging intervals from sums that the steps have made anyway, once enough pairs have been seen since the last
judgement. The numbers go to metrics.jsonl each time; the log gets a line when something is wrong, and again when it has
become half as bad again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from burnish.console import warn
from burnish.engine.recorder import Recorder
from burnish.engine.settings import TrainingSettings
from burnish.objectives.health import PREFIX

LEAST_PAIRS = 64
"""Pairs that a judgement is made of, at least."""
CERTAINTY = 4.0
"""Standard errors that chosen completions must have fallen by, besides the limit: rows differ from window to window."""
NEARLY_NOTHING = 1e-5
"""Share of a float32 sum of squares that its own rounding may be."""
TOLD_AGAIN = 1.5
"""How much worse than when it was last told a problem must be to be told again."""


def without_health(means: Mapping[str, float]) -> dict[str, float]:
    """Metrics without the sums."""
    return {name: value for name, value in means.items() if not name.startswith(PREFIX)}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong, in words and in a size that grows as it gets worse."""

    name: str
    size: float
    text: str


@dataclass(slots=True)
class HealthWatch:
    """Adds up sums until they suffice, and judges them."""

    settings: TrainingSettings
    starts_at_reference: bool
    """Whether chosen log-ratios are 0 before the first step; else the first window is what later ones are held to."""
    state: dict[str, Any] = field(default_factory=dict)
    """What a checkpoint keeps: sums of the open window, its first step, the best chosen mean so far, what was told."""

    def report(self, step: int, interval: Mapping[str, float], recorder: Recorder) -> None:
        """Judge, put the numbers into metrics.jsonl, and say what is wrong."""
        record, line = self.judge(step, interval)
        if record is not None:
            recorder.note(record, kind="health", step=step)
        if line is not None:
            warn(f"step {step}: {line}")

    def judge(self, step: int, interval: Mapping[str, float]) -> tuple[dict[str, Any] | None, str | None]:
        """Take in a logging interval's sums.

        Args:
            step: optimizer steps done.
            interval: metrics, of which those under `health/` are sums.

        Returns:
            The record of a window that has closed, else None; and the line for the log, where something is wrong.
        """
        state = self.state
        sums: dict[str, float] = state.setdefault("sums", {})
        for name, value in interval.items():
            if name.startswith(PREFIX):
                key = name.removeprefix(PREFIX)
                sums[key] = sums.get(key, 0.0) + value
        unit = "rows" if "rows" in sums else "pairs"
        if sums.get(unit, 0.0) < LEAST_PAIRS:
            return None, None
        record, problems = self._look_at(step, sums, unit)
        record = {unit: int(sums[unit]), "first_step": state.get("first_step", 1), **record}
        state |= {"sums": {}, "first_step": step + 1}
        news = [problem.text for problem in problems if self._is_news(problem)]
        record["problems"] = [problem.text for problem in problems]
        return record, f"health: {'; '.join(news)}" if news else None

    def _look_at(self, step: int, sums: Mapping[str, float], unit: str) -> tuple[dict[str, float], list[Problem]]:
        """A window's numbers, and what is wrong with them."""
        record: dict[str, float] = {}
        problems: list[Problem | None] = []
        if sums.get("chosen_count"):
            problems.append(self._chosen_fell(step, sums, record))
        if "saturated" in sums:
            problems.append(self._saturated(sums, record))
        problems.append(self._follows_length(sums, record, unit))
        return record, [problem for problem in problems if problem is not None]

    def _chosen_fell(self, step: int, sums: Mapping[str, float], record: dict[str, float]) -> Problem | None:
        """Compare the chosen completions' mean log-probability (against the reference, if any) with the best so far."""
        count = sums["chosen_count"]
        tokens, mean = max(1.0, sums["chosen_tokens"] / count), sums["chosen"] / count
        variance = max(0.0, sums["chosen_squared"] / count - mean * mean) / count
        best = self.state.get("best", [0, 0.0, 0.0] if self.starts_at_reference else [step, mean, variance])
        if mean > best[1]:
            best = [step, mean, variance]
        self.state["best"] = best
        fall, error = best[1] - mean, math.sqrt(variance + best[2])
        record |= {"chosen_logp_fall": fall, "chosen_logp_fall_per_token": fall / tokens}
        limit = self.settings.health_chosen_fall
        if limit is None or not (fall / tokens > limit and fall > CERTAINTY * error):
            return None
        text = f"chosen log-probability fell {fall:.3g} nats ({fall / tokens:.2g} a token) in {step - best[0]} steps"
        return Problem("chosen", fall, text)

    def _saturated(self, sums: Mapping[str, float], record: dict[str, float]) -> Problem | None:
        share = sums["saturated"] / sums["pairs"]
        record["saturated_margins"] = share
        limit = self.settings.health_saturation
        if limit is None or not share > limit:
            return None
        return Problem("saturated", share, f"margins are saturated: {share:.0%} of pairs teach nothing more")

    def _follows_length(self, sums: Mapping[str, float], record: dict[str, float], unit: str) -> Problem | None:
        """Correlation over pairs of the difference in reward with the difference in length; over rows, of the two.

        Near 1, whichever completion is the longer gets the greater reward; near -1, the shorter. That chosen ones are
        longer as a rule changes nothing: what all pairs have in common is taken out.
        """
        count = sums[unit]
        covariance = sums["md"] - sums["m"] * sums["d"] / count
        variances = [sums[two] - sums[one] ** 2 / count for one, two in (("m", "mm"), ("d", "dd"))]
        is_spread = all(
            spread > NEARLY_NOTHING * sums[two] for spread, two in zip(variances, ("mm", "dd"), strict=True)
        )
        correlation = covariance / math.sqrt(variances[0] * variances[1]) if is_spread else 0.0
        record["length_correlation"] = correlation
        limit = self.settings.health_length_correlation
        if limit is None or not abs(correlation) > limit:
            return None
        text = f"rewards follow length (r = {correlation:.2f} over {int(count)} {unit})"
        return Problem("length", abs(correlation), text)

    def _is_news(self, problem: Problem) -> bool:
        """Whether a problem is told: the first time, and when it has become half as bad again."""
        told: dict[str, float] = self.state.setdefault("told", {})
        if problem.size < TOLD_AGAIN * told.get(problem.name, 0.0):
            return False
        told[problem.name] = problem.size
        return True
