"""What must hold for any scores: fixed points, invariances, and finite values far out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.objectives.divergences import DIVERGENCES
from burnish.objectives.metrics import preference_metrics, preference_rewards
from burnish.objectives.scores import PairScores
from burnish.objectives.table import PAIRED
from objectives.cases import DIVERGENT, SETTINGS, losses, map_tensors, random_scores

WITH_REFERENCE = [name for name, it in PAIRED.items() if it.needs_reference and not it.is_likelihood]
ALONE = [name for name, it in PAIRED.items() if not it.needs_step_scores]
ANTISYMMETRIC = ["sigmoid", "sigmoid_norm", "odpo", "cpo"]
"""Losses -log σ(z) whose z changes its sign with the pair's order where nothing else breaks the symmetry."""
FAR = 1e4

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None)


def pick(scores: PairScores, index: Tensor) -> PairScores:
    """Some of the pairs, in any order."""
    return map_tensors(scores, lambda tensor: tensor.index_select(0, index))


def swap(scores: PairScores) -> PairScores:
    return replace(
        scores,
        chosen_logps=scores.rejected_logps,
        rejected_logps=scores.chosen_logps,
        ref_chosen_logps=scores.ref_rejected_logps,
        ref_rejected_logps=scores.ref_chosen_logps,
        chosen_num_tokens=scores.rejected_num_tokens,
        rejected_num_tokens=scores.chosen_num_tokens,
    )


@given(seed=seeds)
@quick
def test_policy_equal_to_reference_gives_log_2_and_zero_rewards(seed):
    scores = random_scores(seed, margin=False)
    scores = replace(scores, ref_chosen_logps=scores.chosen_logps, ref_rejected_logps=scores.rejected_logps)
    for name in ("sigmoid", "robust", "discopop", "sigmoid_norm", "aot", "aot_unpaired", "dpop"):
        plain = {**SETTINGS, "label_smoothing": 0.0}
        expected = (1 + math.log(2)) / 2 if name == "discopop" else math.log(2)
        torch.testing.assert_close(losses(name, scores, plain), torch.full((12,), expected, dtype=torch.float64))
    for rewards in preference_rewards(scores, "logratio", beta=0.3):
        assert torch.equal(rewards, torch.zeros_like(rewards))


@given(seed=seeds, shift=st.floats(-50, 50))
@quick
def test_a_constant_added_to_both_models_log_probabilities_changes_nothing(seed, shift):
    scores = random_scores(seed)
    assert scores.ref_chosen_logps is not None
    assert scores.ref_rejected_logps is not None
    shifted = replace(
        scores,
        chosen_logps=scores.chosen_logps + shift,
        ref_chosen_logps=scores.ref_chosen_logps + shift,
        rejected_logps=scores.rejected_logps - 2 * shift,
        ref_rejected_logps=scores.ref_rejected_logps - 2 * shift,
    )
    for name in WITH_REFERENCE:
        torch.testing.assert_close(
            losses(name, shifted, SETTINGS), losses(name, scores, SETTINGS), rtol=1e-9, atol=1e-9
        )


@given(seed=seeds, order=st.permutations(range(12)))
@quick
def test_the_order_of_the_pairs_changes_nothing(seed, order):
    scores, index = random_scores(seed), torch.tensor(order)
    for name in PAIRED:
        whole, permuted = losses(name, scores, SETTINGS), losses(name, pick(scores, index), SETTINGS)
        if name in ALONE:
            torch.testing.assert_close(permuted, whole.index_select(0, index))
        else:
            torch.testing.assert_close(permuted, whole)


@given(seed=seeds, cut=st.integers(1, 11))
@quick
def test_the_other_pairs_of_a_micro_batch_change_nothing(seed, cut):
    scores = random_scores(seed)
    for name in ALONE:
        whole = losses(name, scores, SETTINGS)
        parts = [losses(name, pick(scores, it), SETTINGS) for it in torch.arange(12).split([cut, 12 - cut])]
        torch.testing.assert_close(torch.cat(parts), whole)


@given(seed=seeds)
@quick
def test_swapping_the_pair_negates_margin_and_logits(seed):
    scores = random_scores(seed, margin=False)
    zero = torch.zeros(12, dtype=torch.float64)
    one_way = preference_metrics(scores, *preference_rewards(scores, "logratio", beta=0.3))
    other_way = preference_metrics(swap(scores), *preference_rewards(swap(scores), "logratio", beta=0.3))
    torch.testing.assert_close(one_way["rewards/margins"][0], -other_way["rewards/margins"][0])
    for name in ANTISYMMETRIC:
        plain = {**SETTINGS, "label_smoothing": 0.0}
        there = losses(name, replace(scores, margin=zero), plain)
        back = losses(name, replace(swap(scores), margin=zero), plain)
        logits = torch.log(torch.expm1(there))  # z with -log σ(z) = there is -log(e^there - 1)
        torch.testing.assert_close(back, torch.nn.functional.softplus(-logits), rtol=1e-6, atol=1e-9)


def far_scores() -> PairScores:
    """Every combination of log-ratios among ±1e4 and 0, on short and on long completions, float32."""
    grid = torch.cartesian_prod(
        torch.tensor([-FAR, 0.0, FAR]), torch.tensor([-FAR, 0.0, FAR]), torch.tensor([1.0, 1000.0])
    )
    logps = torch.stack([grid[:, 0].clamp(max=0), grid[:, 1].clamp(max=0)], dim=1)
    ref_logps = torch.stack([-grid[:, 0].clamp(min=0), -grid[:, 1].clamp(min=0)], dim=1)
    tokens = grid[:, 2:].expand(-1, 2)
    return PairScores.from_completions(
        logps.flatten().requires_grad_(), ref_logps.flatten(), tokens.flatten(), margin=torch.full((len(grid),), 0.5)
    )


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", PAIRED)
def test_values_and_gradients_are_finite_at_log_ratios_of_ten_thousand(name, divergence):
    scores = far_scores()
    assert {it.item() for it in scores.chosen_logratio} == {-FAR, 0.0, FAR}
    chosen = {**SETTINGS, "f_divergence_type": divergence if name in DIVERGENT else "reverse_kl"}
    for coef in (0.5, -1.0, 2.5) if divergence == "alpha_divergence" else (0.5,):
        values = losses(name, scores, chosen | {"f_alpha_divergence_coef": coef})
        assert torch.isfinite(values).all()
        inputs = [it for it in (scores.chosen_logps, scores.rejected_logps) if it.requires_grad]
        for gradient in torch.autograd.grad(values.sum(), inputs, allow_unused=True, retain_graph=True):
            assert gradient is None or torch.isfinite(gradient).all()


def test_discopop_is_finite_for_any_temperature():
    for tau in (0.01, 0.05, 1.0, 3.0):
        assert torch.isfinite(losses("discopop", far_scores(), {"beta": 2.5, "discopop_tau": tau})).all()


def test_float32_agrees_with_float64():
    exact = random_scores(11)
    single = map_tensors(exact, Tensor.float)
    for name in PAIRED:
        got = losses(name, single, SETTINGS)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), losses(name, exact, SETTINGS), rtol=2e-5, atol=2e-5)
