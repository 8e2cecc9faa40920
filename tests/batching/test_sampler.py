"""The order of rows is a function of seed, epoch and step."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.batching.sampler import StepSampler


def _epoch(sampler: StepSampler, epoch: int) -> list[int]:
    first = epoch * sampler.steps_per_epoch
    return np.concatenate([sampler.groups_of(first + i) for i in range(sampler.steps_per_epoch)]).tolist()


@pytest.mark.parametrize("strategy", ["random", "sequential"])
def test_each_epoch_takes_every_group_once_and_the_short_last_step_keeps_its_rows(strategy: str) -> None:
    sampler = StepSampler(19, 8, seed=3, strategy=strategy)  # pyright: ignore[reportArgumentType]
    assert sampler.steps_per_epoch == 3
    assert len(sampler.groups_of(2)) == 3
    for epoch in range(3):
        assert sorted(_epoch(sampler, epoch)) == list(range(19))


def test_epochs_and_seeds_differ_and_equal_seeds_agree() -> None:
    sampler = StepSampler(50, 8, seed=3)
    assert _epoch(sampler, 0) != _epoch(sampler, 1)
    assert _epoch(sampler, 0) != _epoch(StepSampler(50, 8, seed=4), 0)
    assert _epoch(sampler, 1) == _epoch(StepSampler(50, 8, seed=3), 1)


def test_the_batch_size_does_not_change_the_order() -> None:
    assert _epoch(StepSampler(50, 8, seed=3), 0) == _epoch(StepSampler(50, 7, seed=3), 0)


def test_an_epoch_is_whole_after_its_short_last_step() -> None:
    sampler = StepSampler(19, 8, seed=0)
    assert [round(sampler.epoch_at(step), 3) for step in range(5)] == [0, 0.421, 0.842, 1, 1.421]
