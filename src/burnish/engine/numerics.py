"""May a step's gradient move the weights? Loss and gradient norm must be finite, and a loss spike is dealt with."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from burnish.engine.settings import TrainingSettings

LEAST_RELATIVE_SIGMA = 0.05
"""σ is taken as at least this share of the mean: a loss that stands still (DPO's log 2) has no σ to speak of."""

LEAST_STEPS = 16
"""Steps that mean and σ are taken from at least: σ is then known to 18 %, and six of it leave room for that."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a step."""

    moves: bool
    """Whether the optimizer takes the step."""
    stops: bool = False
    """Whether the run ends here."""
    kind: Literal["good", "nonfinite", "spike"] = "good"
    problem: str = ""
    """What is odd, in words; empty for a good step."""


def judge_step(loss: float, grad_norm: float, recent_losses: Sequence[float], settings: TrainingSettings) -> Verdict:
    """Judge one step before the optimizer moves.

    Args:
        loss: of the whole step over all ranks.
        grad_norm: global L2 norm before clipping.
        recent_losses: of the last good steps, at most loss_spike_window of them, oldest first.
        settings: the policy for spikes.
    """
    if not math.isfinite(loss):
        return Verdict(moves=False, kind="nonfinite", problem=f"the loss is {loss}")
    if not math.isfinite(grad_norm):
        return Verdict(moves=False, kind="nonfinite", problem=f"the gradient's norm is {grad_norm}")
    problem = _find_spike(loss, recent_losses, settings)
    if problem is None:
        return Verdict(moves=True)
    policy = settings.loss_spike
    return Verdict(moves=policy == "log", stops=policy == "stop", kind="spike", problem=problem)


def _find_spike(loss: float, recent: Sequence[float], settings: TrainingSettings) -> str | None:
    """Say how far a loss stands above the window, where that is a spike; no judgement from too few steps."""
    if len(recent) < min(LEAST_STEPS, settings.loss_spike_window // 2):
        return None
    mean = statistics.fmean(recent)
    sigma = max(statistics.pstdev(recent, mean), LEAST_RELATIVE_SIGMA * abs(mean), math.ulp(1.0))
    distance = (loss - mean) / sigma
    if distance <= settings.loss_spike_sigmas:
        return None
    return f"the loss is {loss:.6g}, {distance:.1f} σ above the last {len(recent)} steps' {mean:.6g}"
