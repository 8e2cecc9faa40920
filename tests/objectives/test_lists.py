"""Ranked lists against their oracles, and against the paired losses that they contain."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.errors import DataError
from burnish.objectives.combine import Combination
from burnish.objectives.lists import (
    ListScores,
    pairs_of_lists,
    plackett_luce_loss,
    ranked_order,
    ranked_pairs,
    softmax_loss,
)
from objectives import oracles

LOSSES = {"plackett_luce": plackett_luce_loss, "softmax": softmax_loss}
rankings = st.lists(st.integers(2, 5).flatmap(lambda k: st.permutations(range(k))), min_size=1, max_size=5)
quick = settings(max_examples=40, deadline=None)


def list_scores(ranks: list[list[int]], logps: Tensor, ref_logps: Tensor, loss_type: str = "softmax") -> ListScores:
    return ListScores.from_completions(logps, ref_logps, *ranked_order(ranks, loss_type=loss_type))


def random_logps(ranks: list[list[int]], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = sum(map(len, ranks))
    return (
        -9 * torch.rand(count, generator=generator, dtype=torch.float64),
        -9 * torch.rand(count, generator=generator, dtype=torch.float64),
    )


def best_first(ranks: list[list[int]], values: Tensor) -> list[list[float]]:
    parts = values.split([len(it) for it in ranks])
    return [
        [value for _, value in sorted(zip(it, part.tolist(), strict=True), key=lambda pair: pair[0])]
        for it, part in zip(ranks, parts, strict=True)
    ]


@pytest.mark.parametrize("name", LOSSES)
@given(ranks=rankings, seed=st.integers(0, 1000))
@quick
def test_losses_equal_the_oracle(name, ranks, seed):
    logps, ref_logps = random_logps(ranks, seed)
    got = LOSSES[name](list_scores(ranks, logps, ref_logps), beta=0.4)
    oracle = getattr(oracles, name)
    expected = [oracle(ratios, 0.4) for ratios in best_first(ranks, logps - ref_logps)]
    assert got.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    ranks = [[1, 0, 2], [0, 1], [3, 1, 0, 2]]
    logps, ref_logps = random_logps(ranks, 3)
    assert torch.autograd.gradcheck(
        lambda it: LOSSES[name](list_scores(ranks, it, ref_logps), beta=0.4), logps.requires_grad_()
    )


@pytest.mark.parametrize("name", LOSSES)
def test_two_completions_make_the_loss_of_dpo(name):
    ranks = [[0, 1], [0, 1], [0, 1]]
    logps, ref_logps = random_logps(ranks, 4)
    ratios = (logps - ref_logps).view(-1, 2)
    expected = -torch.nn.functional.logsigmoid(0.4 * (ratios[:, 0] - ratios[:, 1]))
    torch.testing.assert_close(LOSSES[name](list_scores(ranks, logps, ref_logps), beta=0.4), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_longer_neighbours_do_not_change_a_list(name):
    logps, ref_logps = random_logps([[1, 0], [0, 1, 2, 3, 4]], 5)
    together = LOSSES[name](list_scores([[1, 0], [0, 1, 2, 3, 4]], logps, ref_logps), beta=0.4)
    alone = LOSSES[name](list_scores([[1, 0]], logps[:2], ref_logps[:2]), beta=0.4)
    torch.testing.assert_close(together[:1], alone)


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_finite_at_log_ratios_of_ten_thousand(name):
    values = list(itertools.product([-1e4, 0.0, 1e4], repeat=3))
    ranks = [[0, 1, 2]] * len(values) + [[0, 1]]
    logps = torch.tensor([*itertools.chain(*values), 1e4, -1e4]).requires_grad_()
    losses = LOSSES[name](list_scores(ranks, logps, torch.zeros_like(logps)), beta=0.5)
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()


def test_ties_are_an_error_where_the_objective_does_not_admit_them():
    with pytest.raises(DataError, match=r"^tied ranks \[0, 1, 1\]"):
        ranked_order([[0, 1], [0, 1, 1]])
    with pytest.raises(DataError, match="softmax does not admit"):
        ranked_order([[0, 0, 1]], loss_type="softmax")
    ranked_order([[0, 1, 1]], loss_type="softmax")


def test_all_pairs_of_a_ranking_are_those_that_differ_in_rank():
    chosen, rejected, lists = ranked_pairs([[0, 1, 1], [1, 0], [0, 0]])
    assert list(zip(chosen.tolist(), rejected.tolist(), lists.tolist(), strict=True)) == [
        (0, 1, 0),
        (0, 2, 0),
        (4, 3, 1),
    ]


@given(ranks=rankings, seed=st.integers(0, 1000))
@quick
def test_all_pairs_is_the_mean_over_lists_of_the_mean_over_pairs(ranks, seed):
    logps, ref_logps = random_logps(ranks, seed)
    weight = torch.linspace(0.5, 1.5, len(ranks), dtype=torch.float64)
    tokens = torch.ones_like(logps)
    scores = pairs_of_lists(logps, ref_logps, tokens, ranked_pairs(ranks), weight=weight)
    got, _ = Combination(["sigmoid"], None, {"beta": 0.4}).total(scores, {"pairs": float(len(ranks))})
    expected = 0.0
    for row, ratios in zip(weight.tolist(), best_first(ranks, logps - ref_logps), strict=True):
        losses = [-oracles.log_sigma(0.4 * (high - low)) for high, low in itertools.combinations(ratios, 2)]
        expected += row * sum(losses) / len(losses) / len(ranks)
    assert got.item() == pytest.approx(expected)
