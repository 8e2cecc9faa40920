"""Every paired objective against its oracle, in value and in gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from burnish.objectives.scores import PairScores
from burnish.objectives.table import PAIRED
from objectives.cases import DIVERGENT, SETTINGS, as_numbers, losses, random_scores
from objectives.oracles import PAIR_ORACLES, STEP_ORACLES, pair_losses

DIVERGENCES = [
    {"f_divergence_type": "forward_kl"},
    {"f_divergence_type": "js_divergence"},
    {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
    {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.6},
    {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": -0.5},
]


def with_logps(scores: PairScores, logps: Tensor) -> PairScores:
    chosen, rejected = logps.view(-1, 2).unbind(dim=1)
    return replace(scores, chosen_logps=chosen, rejected_logps=rejected)


def test_every_objective_has_an_oracle():
    assert set(PAIRED) == set(PAIR_ORACLES) | set(STEP_ORACLES)


@pytest.mark.parametrize("name", PAIRED)
def test_losses_equal_the_oracle(name):
    check_against_oracle(name, random_scores(1))


@pytest.mark.parametrize("name", [name for name in PAIRED if name != "odpo"])
def test_losses_without_margins_equal_the_oracle(name):
    check_against_oracle(name, random_scores(1, margin=False))


def check_against_oracle(name: str, scores: PairScores) -> None:
    expected = torch.from_numpy(pair_losses(name, as_numbers(scores), SETTINGS))
    torch.testing.assert_close(losses(name, scores, SETTINGS), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda it: "-".join(map(str, it.values())))
@pytest.mark.parametrize("name", DIVERGENT)
def test_losses_equal_the_oracle_with_other_divergences(name, divergence):
    settings = SETTINGS | divergence
    scores = random_scores(2)
    expected = torch.from_numpy(pair_losses(name, as_numbers(scores), settings))
    torch.testing.assert_close(losses(name, scores, settings), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", PAIRED)
def test_gradients_equal_finite_differences(name):
    scores = random_scores(3, num_pairs=4)
    logps = torch.stack([scores.chosen_logps, scores.rejected_logps], dim=1).flatten().requires_grad_()
    assert torch.autograd.gradcheck(lambda it: losses(name, with_logps(scores, it), SETTINGS), logps)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda it: "-".join(map(str, it.values())))
@pytest.mark.parametrize("name", DIVERGENT)
def test_gradients_equal_finite_differences_with_other_divergences(name, divergence):
    scores = random_scores(4, num_pairs=4)
    logps = torch.stack([scores.chosen_logps, scores.rejected_logps], dim=1).flatten().requires_grad_()
    settings = SETTINGS | divergence
    assert torch.autograd.gradcheck(lambda it: losses(name, with_logps(scores, it), settings), logps)


@pytest.mark.parametrize("name", ["cpo", "orpo"])
def test_likelihood_parts_are_the_chosen_completions_negative_log_likelihood(name):
    scores = random_scores(5)
    likelihood = PAIRED[name].likelihood
    assert likelihood is not None
    factor = {"cpo": {"cpo_alpha": 1.7}, "orpo": {}}[name]
    expected = -scores.chosen_logps * (1.7 if name == "cpo" else 1.0)
    torch.testing.assert_close(likelihood(scores, **factor), expected)


def test_orpo_counts_the_prompt_where_asked():
    scores = replace(random_scores(6), prompt_logps=torch.linspace(-5, -1, 12, dtype=torch.float64))
    likelihood = PAIRED["orpo"].likelihood
    assert likelihood is not None
    assert scores.prompt_logps is not None
    torch.testing.assert_close(likelihood(scores, orpo_nll_on_prompt=True), -scores.chosen_logps - scores.prompt_logps)


def test_label_smoothing_may_be_a_column_of_the_rows():
    scores = random_scores(7)
    column = torch.linspace(0.05, 0.4, 12, dtype=torch.float64)
    for name in ("sigmoid", "exo_pair", "robust", "cpo", "simpo"):
        got = losses(name, scores, SETTINGS | {"label_smoothing": column})
        for row, value in enumerate(column.tolist()):
            expected = pair_losses(name, as_numbers(scores), SETTINGS | {"label_smoothing": value})[row]
            assert got[row].item() == pytest.approx(expected, rel=1e-12)
