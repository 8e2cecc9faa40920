"""Groups over ranks: all of them once, balanced by tokens, and equally many micro-batches on each rank."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from burnish.batching.planner import RowShape, StepPlan, plan_step
from burnish.batching.ranks import plan_ranks

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


def _plans(lengths: list[int], max_tokens: int, num_ranks: int) -> tuple[StepPlan, ...]:
    def plan(groups: Sequence[int]) -> StepPlan:
        return plan_step(groups, [RowShape(1, lengths[group]) for group in groups], max_tokens)

    return plan_ranks(range(len(lengths)), lengths, plan, num_ranks)


@given(LENGTHS, st.integers(1, 800), st.integers(1, 9))
def test_every_group_is_computed_once_and_ranks_have_equally_many_micro_batches(
    lengths: list[int], max_tokens: int, num_ranks: int
) -> None:
    plans = _plans(lengths, max_tokens, num_ranks)
    counted = [group for plan in plans for micro in plan.micro_batches if not micro.is_filler for group in micro.groups]
    assert sorted(counted) == list(range(len(lengths)))
    assert len({len(plan.micro_batches) for plan in plans}) == 1
    for micro in (micro for plan in plans for micro in plan.micro_batches):
        assert micro.length == max(lengths[group] for group in micro.groups)
        assert micro.num_padded_tokens <= max_tokens or len(micro.groups) == 1


@given(LENGTHS, st.integers(1, 800))
def test_one_rank_has_the_plan_of_a_run_without_ranks(lengths: list[int], max_tokens: int) -> None:
    shapes = [RowShape(1, length) for length in lengths]
    assert _plans(lengths, max_tokens, 1) == (plan_step(range(len(lengths)), shapes, max_tokens),)


@given(LENGTHS, st.integers(2, 8))
def test_tokens_of_ranks_differ_by_one_group_at_most(lengths: list[int], num_ranks: int) -> None:
    plans = _plans(lengths, 1000, num_ranks)
    loads = [sum(lengths[group] for m in plan.micro_batches if not m.is_filler for group in m.groups) for plan in plans]
    assert max(loads) - min(loads) <= max(lengths)


def test_one_long_row_has_a_rank_to_itself() -> None:
    first, second = _plans([400, 20, 30, 40, 10], 100, 2)
    assert [micro.groups for micro in first.micro_batches if not micro.is_filler] == [(0,)]
    assert sorted(group for micro in second.micro_batches for group in micro.groups) == [1, 2, 3, 4]


def test_a_rank_without_rows_computes_the_smallest_with_weight_0() -> None:
    plans = _plans([30, 20], 100, 3)
    assert [plan.micro_batches[0].is_filler for plan in plans] == [False, False, True]
    assert plans[2].micro_batches[0].groups == (1,)
    assert plans[2].num_groups == 0
