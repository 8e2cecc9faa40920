"""The learning rates that are computed here are transformers', bit for bit."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.optim import SGD

from burnish.engine.schedule import SHARES, build_schedule
from burnish.engine.settings import TrainingSettings


def _optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4 / 7)


@pytest.mark.parametrize(("name", "warmup"), list(product(SHARES, [0, 1, 5, 0.3, 40])))
def test_learning_rates_are_those_of_transformers(name: str, warmup: float) -> None:
    from transformers.optimization import get_scheduler

    from burnish.engine.schedule import warmup_steps

    settings, total = TrainingSettings(lr_scheduler_type=name, warmup_steps=warmup), 23
    theirs_optimizer, ours_optimizer = _optimizer(), _optimizer()
    steps = warmup_steps(settings, total)
    theirs = get_scheduler(name, theirs_optimizer, num_warmup_steps=steps, num_training_steps=total)
    ours = build_schedule(ours_optimizer, settings, total)
    for step in range(total + 3):
        assert ours.get_last_lr() == theirs.get_last_lr(), step
        for optimizer, schedule in ((ours_optimizer, ours), (theirs_optimizer, theirs)):
            optimizer.step()
            schedule.step()


def test_a_schedule_with_arguments_is_left_to_transformers() -> None:
    settings = TrainingSettings(lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1.5})
    optimizer = _optimizer()
    schedule = build_schedule(optimizer, settings, 30)
    rates = []
    for _ in range(25):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates[19] > rates[9]


def test_a_first_step_that_is_skipped_moves_the_rate_without_a_warning() -> None:
    schedule = build_schedule(_optimizer(), TrainingSettings(lr_scheduler_type="linear", warmup_steps=2), 10)
    schedule.step()
    assert schedule.last_epoch == 1
