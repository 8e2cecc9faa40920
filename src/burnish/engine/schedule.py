"""Learning-rate schedules by transformers' names, the common ones without its trainer.

transformers' own functions import its Trainer's utilities, and with them peft. What is here gives the same numbers, bit
for bit (`tests/engine/test_schedule.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from burnish.engine.settings import TrainingSettings
from burnish.errors import ConfigError

AfterWarmup = Callable[[int, int], float]
"""Steps done since the warm-up, and all steps after it → share of the learning rate."""


def build_schedule(optimizer: Optimizer, settings: TrainingSettings, total_steps: int) -> Any:
    """Make the learning-rate schedule by transformers' names.

    Call it before accelerate wraps the optimizer, which puts the `step` that it found back after each scaled one: torch
    looks for its mark on it.

    Raises:
        ConfigError: the name is unknown, or its arguments do not fit.
    """
    schedule = _make(optimizer, settings, total_steps)
    # A step that is skipped moves the rate as any other. Where it is the first, torch would warn of a wrong order.
    optimizer._opt_called = True  # pyright: ignore[reportAttributeAccessIssue]
    return schedule


def _make(optimizer: Optimizer, settings: TrainingSettings, total_steps: int) -> Any:
    name, warmup = settings.lr_scheduler_type, warmup_steps(settings, total_steps)
    if name in SHARES and not settings.lr_scheduler_kwargs:
        share = partial(_share_at, warmup=warmup, total=total_steps, after=SHARES[name])
        return LambdaLR(optimizer, _always_whole if name == "constant" else share)
    from transformers.optimization import get_scheduler

    try:
        return get_scheduler(
            name,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=total_steps,
            scheduler_specific_kwargs=settings.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--lr_scheduler_type {name}: {str(error).splitlines()[0]}") from error


def warmup_steps(settings: TrainingSettings, total_steps: int) -> int:
    """Steps of warm-up; a value below 1 is a share of all steps, rounded up."""
    share = settings.warmup_steps
    return math.ceil(share * total_steps) if 0 < share < 1 else int(share)


def _share_at(step: int, *, warmup: int, total: int, after: AfterWarmup) -> float:
    """Share of the learning rate at a step (from 0): it rises linearly from 0 over the warm-up."""
    return step / max(1, warmup) if step < warmup else after(step - warmup, total - warmup)


def _falling(done: int, steps: int) -> float:
    return max(0.0, (steps - done) / max(1, steps))


def _half_a_wave(done: int, steps: int) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (done / max(1, steps)))))


def _staying(_done: int, _steps: int) -> float:
    return 1.0


def _always_whole(_step: int) -> float:
    return 1.0


SHARES: Mapping[str, AfterWarmup] = {
    "linear": _falling,
    "cosine": _half_a_wave,
    "constant": _staying,
    "constant_with_warmup": _staying,
}
"""The schedules that are computed here."""
