"""Combinations: sums over the step, however it is cut, weighted and logged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.combine import Combination
from burnish.objectives.scores import PairScores
from burnish.objectives.table import PAIRED
from objectives.cases import SETTINGS, as_numbers, map_tensors, random_scores
from objectives.oracles import pair_losses

MPO = (["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0])
PARTS = {1: [12], 2: [5, 7], 8: [1, 2, 1, 3, 1, 1, 2, 1]}


def with_prompts(scores: PairScores) -> PairScores:
    """Scores with all optional columns that an objective may use, and log-probabilities to differentiate by."""
    return replace(
        scores,
        prompt_logps=torch.linspace(-4, -1, scores.num_pairs, dtype=torch.float64),
        pair_weight=torch.linspace(0.2, 0.9, scores.num_pairs, dtype=torch.float64),
        chosen_likelihood=scores.chosen_logps * 1.25,
    )


def denominators(scores: PairScores) -> dict[str, float]:
    tokens = float(scores.chosen_num_tokens.sum())
    return {"pairs": float(scores.num_pairs), "chosen_tokens": tokens, "chosen_and_prompt_tokens": tokens + 31}


def update(combination: Combination, sizes: list[int]) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Loss, gradient by a shared parameter and term metrics of a step, one backward a micro-batch."""
    parameter = torch.tensor([0.4, -0.3], dtype=torch.float64, requires_grad=True)
    base = random_scores(21, margin=not combination.needs_step_scores)
    features = torch.sin(torch.arange(24, dtype=torch.float64)).view(12, 2)

    def step_scores() -> PairScores:
        shift = features @ parameter
        return with_prompts(
            replace(base, chosen_logps=base.chosen_logps + shift, rejected_logps=base.rejected_logps - 2 * shift)
        )

    counts = denominators(base)
    coupled = combination.couple(step_scores(), counts) if combination.needs_step_scores else None
    loss = torch.zeros((), dtype=torch.float64)
    metrics: dict[str, list[Tensor]] = {}
    for index in torch.arange(12).split(sizes):
        scores = map_tensors(step_scores(), lambda tensor, index=index: tensor.index_select(0, index))
        share, terms = combination.total(scores, counts, coupled=coupled.select(index) if coupled else None)
        share.backward()
        loss = loss + share.detach()
        for name, pair in terms.items():
            metrics.setdefault(name, []).append(torch.stack([part.double() for part in pair]))
    assert parameter.grad is not None
    sums = {name: torch.stack(parts).sum(dim=0) for name, parts in metrics.items()}
    return loss, parameter.grad, {name: (pair[0] / pair[1]).item() for name, pair in sums.items()}


COMBINATIONS: list[tuple[list[Any], list[float] | None, dict[str, Any]]] = [
    *[([name], None, {}) for name in PAIRED],
    (*MPO, {}),
    (["sigmoid", "aot"], [1.0, 0.5], {}),
    (["aot", "aot_unpaired", "sft"], [0.3, 0.5, 0.1], {}),
    (["orpo"], None, {"orpo_nll_on_prompt": True}),
    (["sigmoid"], None, {"f_divergence_type": "js_divergence"}),
]


@pytest.mark.parametrize("cut", [2, 8])
@pytest.mark.parametrize("case", COMBINATIONS, ids=lambda it: "+".join(it[0]) + "-".join(["", *it[2]]))
def test_the_update_does_not_depend_on_how_the_step_is_cut(case, cut):
    loss_types, weights, settings = case
    combination = Combination(loss_types, weights, {**SETTINGS, **settings})
    loss, gradient, metrics = update(combination, PARTS[1])
    cut_loss, cut_gradient, cut_metrics = update(combination, PARTS[cut])
    torch.testing.assert_close(cut_loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cut_gradient, gradient, rtol=1e-11, atol=1e-12)
    assert cut_metrics == pytest.approx(metrics, rel=1e-6)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_coupled_coefficients_give_the_gradient_of_the_loss_itself(name):
    parameter = torch.linspace(-1, 1, 24, dtype=torch.float64, requires_grad=True)
    base = random_scores(22, margin=False)
    shifted = (base.chosen_logps + parameter[:12], base.rejected_logps + parameter[12:])
    scores = replace(base, chosen_logps=shifted[0], rejected_logps=shifted[1], weight=torch.ones(12))
    direct = PAIRED[name].function(scores, beta=0.3, label_smoothing=0.15).mean()
    combination = Combination([name], [2.0], SETTINGS)
    counts = {"pairs": 12.0}
    total, _ = combination.total(scores, counts, coupled=combination.couple(scores, counts))
    torch.testing.assert_close(total, 2 * direct)
    (expected,) = torch.autograd.grad(2 * direct, parameter, retain_graph=True)
    (got,) = torch.autograd.grad(total, parameter)
    torch.testing.assert_close(got, expected)
    assert expected.abs().sum() > 0.01


def test_total_is_the_weighted_sum_of_oracles_each_over_its_own_count():
    scores = random_scores(23)
    total, terms = Combination(*MPO, SETTINGS).total(scores, denominators(scores))
    weight, pairs = scores.weight.numpy(), as_numbers(scores)
    expected = {
        "loss/sigmoid": (weight * pair_losses("sigmoid", pairs, SETTINGS)).sum() / 12,
        "loss/bco_pair": (weight * pair_losses("bco_pair", pairs, SETTINGS)).sum() / 12,
        "loss/sft": (weight * pair_losses("sft", pairs, SETTINGS)).sum() / sum(pair.chosen_tokens for pair in pairs),
    }
    assert {name: (value / count).item() for name, (value, count) in terms.items()} == pytest.approx(expected)
    assert total.item() == pytest.approx(sum(w * v for w, v in zip(MPO[1], expected.values(), strict=True)))


def test_cpo_and_orpo_add_the_likelihood_over_chosen_tokens():
    scores = random_scores(24)
    counts = denominators(scores)
    weight = scores.weight.numpy()
    likelihood = (weight * pair_losses("sft", as_numbers(scores), {})).sum() / counts["chosen_tokens"]
    for name, factor in (("cpo", 1.7), ("orpo", 1.0)):
        contrast = (weight * pair_losses(name, as_numbers(scores), SETTINGS)).sum() / 12
        total, _ = Combination([name], None, SETTINGS).total(scores, counts)
        assert total.item() == pytest.approx(contrast + factor * likelihood)


def test_orpo_with_the_prompt_divides_by_its_tokens_too():
    scores = replace(random_scores(24), prompt_logps=torch.full((12,), -3.0, dtype=torch.float64))
    counts = denominators(scores)
    settings = {**SETTINGS, "orpo_nll_on_prompt": True}
    contrast = (scores.weight.numpy() * pair_losses("orpo", as_numbers(scores), SETTINGS)).sum() / 12
    likelihood = (scores.weight * (3.0 - scores.chosen_logps)).sum() / counts["chosen_and_prompt_tokens"]
    total, _ = Combination(["orpo"], None, settings).total(scores, counts)
    assert total.item() == pytest.approx(contrast + likelihood.item())


def test_row_weights_multiply_numerators_and_no_denominator():
    scores = replace(random_scores(25), weight=torch.ones(12, dtype=torch.float64))
    doubled = replace(scores, weight=torch.full((12,), 2.0, dtype=torch.float64))
    combination = Combination(*MPO, SETTINGS)
    counts = denominators(scores)
    torch.testing.assert_close(combination.total(doubled, counts)[0], 2 * combination.total(scores, counts)[0])


def test_likelihood_weights_of_pairs_leave_the_separate_sft_term_alone():
    scores = replace(random_scores(26), pair_weight=torch.full((12,), 0.25, dtype=torch.float64))
    plain = replace(scores, pair_weight=None)
    counts = denominators(scores)
    combination = Combination(["sigmoid", "sft", "cpo"], None, SETTINGS)
    weighted, unweighted = combination.shares(scores, counts), combination.shares(plain, counts)
    torch.testing.assert_close(weighted["sigmoid"], unweighted["sigmoid"] / 4)
    torch.testing.assert_close(weighted["cpo"], unweighted["cpo"] / 4)
    torch.testing.assert_close(weighted["sft"], unweighted["sft"])


def test_values_of_the_step_win_over_settings():
    scores = random_scores(27)
    counts = denominators(scores)
    combination = Combination(["sigmoid", "bco_pair"], None, SETTINGS)
    scheduled = combination.total(scores, counts, {"beta": torch.tensor(0.9), "reward_baseline": torch.tensor(0.4)})[0]
    other = Combination(["sigmoid", "bco_pair"], None, {**SETTINGS, "beta": 0.9, "reward_baseline": 0.4})
    torch.testing.assert_close(scheduled, other.total(scores, counts)[0], rtol=1e-6, atol=1e-6)
    chosen, _ = combination.rewards(scores, {"beta": 0.9})
    torch.testing.assert_close(chosen, 0.9 * scores.chosen_logratio)


def test_a_label_smoothing_column_replaces_the_setting():
    scores = random_scores(28)
    column = replace(scores, label_smoothing=torch.full((12,), 0.4, dtype=torch.float64))
    counts = denominators(scores)
    got = Combination(["sigmoid", "hinge"], None, SETTINGS).total(column, counts)[0]
    expected = Combination(["sigmoid", "hinge"], None, {**SETTINGS, "label_smoothing": 0.4}).total(scores, counts)[0]
    torch.testing.assert_close(got, expected)


def test_coupled_terms_without_the_step_are_an_error():
    scores = random_scores(29, margin=False)
    with pytest.raises(ConfigError, match="aot couples the step"):
        Combination(["sigmoid", "aot"], None, SETTINGS).total(scores, denominators(scores))


@pytest.mark.parametrize(
    ("loss_types", "needed", "reward"),
    [
        (["sigmoid"], True, "logratio"),
        (["sft"], True, "logratio"),
        (["simpo"], False, "average"),
        (["sft", "cpo"], False, "logp"),
        (["orpo"], False, "average"),
        (["alphapo"], False, "alphapo"),
        (["simpo", "hinge"], True, "logratio"),
    ],
)
def test_a_reference_is_loaded_only_where_a_term_compares_with_it(loss_types, needed, reward):
    combination = Combination(loss_types, None, SETTINGS)
    assert combination.needs_reference is needed
    assert combination.reward == reward


def test_reference_free_objectives_work_without_reference_scores():
    scores = replace(random_scores(30), ref_chosen_logps=None, ref_rejected_logps=None)
    counts = denominators(scores)
    for name in ("simpo", "cpo", "orpo", "alphapo"):
        combination = Combination([name], None, SETTINGS)
        assert torch.isfinite(combination.total(scores, counts)[0])
        assert all(torch.isfinite(rewards).all() for rewards in combination.rewards(scores))
    with pytest.raises(ConfigError, match="no reference was scored"):
        Combination(["sigmoid"], None, SETTINGS).total(scores, counts)
    with pytest.raises(ConfigError, match="no reference was scored"):
        Combination(["aot"], None, SETTINGS).couple(scores, counts)


def test_rewards_are_as_each_objective_defines_them():
    scores = random_scores(31)
    average = scores.chosen_logps / scores.chosen_num_tokens
    alphapo = 0.3 * (1 - torch.exp(-0.35 * average)) / 0.35
    expected = {"simpo": 0.3 * average, "orpo": 0.3 * average, "cpo": 0.3 * scores.chosen_logps, "alphapo": alphapo}
    for name, reward in expected.items():
        torch.testing.assert_close(Combination([name], None, SETTINGS).rewards(scores)[0], reward)


@pytest.mark.parametrize(
    ("loss_types", "weights", "settings", "expected"),
    [
        (["sigmoid"], None, {"beta": 0.1}, math.log(2)),
        (["hinge", "ipo"], [1.0, 0.5], {"beta": 0.5}, 1 + 0.5),
        (["aot"], None, {"beta": 0.1}, math.log(2)),
        (["odpo"], None, {"beta": 0.1}, math.log(2)),
        (["apo_zero"], None, {"beta": 0.1}, 1.0),
        (["sigmoid", "sft"], None, {"beta": 0.1}, None),
        (["simpo"], None, {"beta": 2.0}, None),
        (["sigmoid"], None, {"beta": 0.1, "use_weighting": True}, None),
    ],
)
def test_the_loss_at_the_start_has_its_closed_form(loss_types, weights, settings, expected):
    assert Combination(loss_types, weights, settings).loss_at_start() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss_types", "weights", "message"),
    [
        ([], None, "loss_type is empty"),
        (["sigmoid", "hinge"], [1.0], "1 values for 2 objectives"),
        (["sigmoid"], [-1.0], "0 or more"),
        (["sigmoid"], [float("nan")], "finite"),
        (["sigmoid"], [0.0], "not all 0"),
        (["sigmoid", "sigmoid"], None, "twice"),
        (["sigmiod"], None, "did you mean sigmoid"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(loss_types, weights, message):
    with pytest.raises(ConfigError, match=message):
        Combination(loss_types, weights, SETTINGS)


def test_a_users_own_function_gets_the_same_scores_and_the_settings_that_it_names():
    def squared(scores: PairScores, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
        return (beta * (scores.chosen_logratio - scores.rejected_logratio) - 1).square() + label_smoothing

    scores = random_scores(32)
    shares = Combination([squared], None, SETTINGS).shares(scores, denominators(scores))
    expected = scores.weight * squared(scores, beta=0.3, label_smoothing=0.15) / 12
    torch.testing.assert_close(shares["squared"], expected)


def test_a_users_own_function_that_reduces_by_itself_is_an_error():
    def reduced(scores: PairScores, *, beta: float) -> Tensor:
        return (beta * scores.chosen_logratio).mean()

    scores = random_scores(33)
    with pytest.raises(ConfigError, match=r"one loss a pair, \(12,\), not \(\)"):
        Combination([reduced], None, SETTINGS).total(scores, denominators(scores))


def test_a_users_own_function_is_found_by_module_and_name():
    combination = Combination(["objectives.own_loss:plain_margin", "sigmoid"], [0.5, 1.0], SETTINGS)
    assert [term.name for term in combination.terms] == ["plain_margin", "sigmoid"]
    assert combination.terms[0].objective.needs_reference is False
    with pytest.raises(ConfigError, match="cannot import no_such_module"):
        Combination(["no_such_module:loss"], None, SETTINGS)
    with pytest.raises(ConfigError, match="has no function missing"):
        Combination(["objectives.own_loss:missing"], None, SETTINGS)
