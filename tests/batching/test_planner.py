"""A plan holds every group once, within its budget, however the groups come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burnish.batching.planner import RowShape, plan_step

shapes = st.lists(st.builds(RowShape, st.integers(1, 4), st.integers(1, 300)), min_size=1, max_size=40)


@given(shapes, st.integers(1, 2000))
def test_every_group_is_planned_once_and_within_the_budget(rows: list[RowShape], budget: int) -> None:
    indices = list(range(100, 100 + len(rows)))
    plan = plan_step(indices, rows, budget)
    assert sorted(index for micro in plan.micro_batches for index in micro.groups) == indices
    for micro in plan.micro_batches:
        members = [rows[index - 100] for index in micro.groups]
        assert micro.num_rows == sum(row.num_rows for row in members)
        assert micro.length == max(row.length for row in members)
        assert micro.num_padded_tokens <= budget or len(members) == 1


@given(shapes)
def test_a_budget_that_holds_all_gives_one_micro_batch(rows: list[RowShape]) -> None:
    assert len(plan_step(range(len(rows)), rows, 10**9).micro_batches) == 1


def test_sorting_keeps_padding_small() -> None:
    rows = [RowShape(1, 100 if i % 2 else 10) for i in range(16)]
    assert plan_step(range(16), rows, 400).num_padded_tokens == 8 * 100 + 8 * 10
