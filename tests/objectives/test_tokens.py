"""Sums over tokens, the length discount and the likelihood weights, against loops over tokens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.objectives.tokens import aggregate_logps, discount_weights, likelihood_weights

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=4).map(lambda it: [n + 1 for n in it] + it)
even_lengths = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4).map(
    lambda pairs: [length for pair in pairs for length in pair]
)
quick = settings(max_examples=40, deadline=None)


def places(sizes: list[int]) -> tuple[Tensor, Tensor]:
    completions = [number for number, size in enumerate(sizes) for _ in range(size)]
    offsets = [offset for size in sizes for offset in range(size)]
    return torch.tensor(completions), torch.tensor(offsets)


def random_logps(sizes: list[int], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(sum(sizes), generator=generator, dtype=torch.float64)


@given(sizes=lengths, seed=st.integers(0, 1000))
@quick
def test_sums_by_completion_equal_a_loop(sizes, seed):
    logps = random_logps(sizes, seed)
    got = aggregate_logps(logps, *places(sizes), num_completions=len(sizes), max_counted=max(sizes))
    expected = [part.sum().item() for part in logps.split(sizes)]
    assert got.tolist() == pytest.approx(expected)


@given(sizes=lengths, seed=st.integers(0, 1000), extra=st.integers(0, 5))
@quick
def test_padding_and_order_of_the_tokens_do_not_change_the_sums(sizes, seed, extra):
    logps, (completions, offsets) = random_logps(sizes, seed), places(sizes)
    order = torch.randperm(len(logps), generator=torch.Generator().manual_seed(seed))
    plain = aggregate_logps(logps, completions, offsets, num_completions=len(sizes), max_counted=max(sizes))
    moved = aggregate_logps(
        logps[order],
        completions[order],
        offsets[order],
        num_completions=len(sizes),
        max_counted=max(sizes) + extra,
    )
    torch.testing.assert_close(moved, plain)


def test_token_weights_multiply_each_token():
    logps = torch.tensor([-1.0, -2.0, -4.0], dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    got = aggregate_logps(logps, *places([2, 1]), num_completions=2, max_counted=2, token_weights=weights)
    assert got.tolist() == [-2.0, 0.0]


@given(sizes=even_lengths, alpha=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 1000))
@quick
def test_tokens_beyond_the_shorter_completion_count_alpha_times(sizes, alpha, seed):
    logps, (completions, offsets) = random_logps(sizes, seed), places(sizes)
    weights = discount_weights(torch.tensor(sizes, dtype=torch.float64), completions, offsets, ld_alpha=alpha)
    got = aggregate_logps(
        logps, completions, offsets, num_completions=len(sizes), max_counted=max(sizes), token_weights=weights
    )
    for number, tokens in enumerate(logps.split(sizes)):
        shared = min(sizes[number], sizes[number ^ 1])
        expected = tokens[:shared].sum() + alpha * tokens[shared:].sum()
        assert got[number].item() == pytest.approx(expected.item())


@given(sizes=even_lengths, seed=st.integers(0, 1000))
@quick
def test_likelihood_weights_equal_a_loop_and_carry_no_gradient(sizes, seed):
    logps = random_logps(sizes, seed).requires_grad_()
    squares = random_logps(sizes, seed + 1)
    counts = torch.tensor(sizes, dtype=torch.float64)
    got = likelihood_weights(logps, squares, *places(sizes), counts, max_counted=max(sizes))
    assert not got.requires_grad
    aligned = (logps.detach() - squares).split(sizes)
    means = [part.mean().item() for part in aligned]
    expected = [math.exp(means[i]) * math.exp(means[i + 1]) for i in range(0, len(means), 2)]
    assert got.tolist() == pytest.approx(expected)


def test_sums_have_the_gradient_of_a_sum():
    sizes = [3, 1, 2, 2]
    logps = random_logps(sizes, 5).requires_grad_()
    weights = discount_weights(torch.tensor(sizes, dtype=torch.float64), *places(sizes), ld_alpha=0.4)

    def sums(values: Tensor) -> Tensor:
        return aggregate_logps(values, *places(sizes), num_completions=4, max_counted=3, token_weights=weights)

    assert torch.autograd.gradcheck(sums, logps)
