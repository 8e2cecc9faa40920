"""The order of rows is a function of seed, epoch and step."""

from __future__ import annotations

import numpy as np
import pytest

from burnish.batching.sampler import Numbering, StepSampler, draw_order


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


@pytest.mark.parametrize("strategy", ["random", "sequential"])
def test_examples_without_a_group_leave_the_order_of_the_others(strategy: str) -> None:
    numbers = np.array([0, 2, 3, 4, 7, 8, 9, 12])
    sampler = StepSampler(8, 3, 5, strategy, Numbering(numbers, 13))  # pyright: ignore[reportArgumentType]
    for epoch in range(3):
        drawn = draw_order(13, 5, epoch, strategy)
        assert [numbers[index] for index in _epoch(sampler, epoch)] == [n for n in drawn if n in numbers]


def test_where_each_example_gave_a_group_the_order_is_one_of_groups() -> None:
    numbered = StepSampler(50, 8, 3, numbering=Numbering(np.arange(50), 50))
    assert _epoch(numbered, 1) == _epoch(StepSampler(50, 8, seed=3), 1) == draw_order(50, 3, 1, "random").tolist()
