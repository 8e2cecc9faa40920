"""Settings and columns that are refused before a run begins."""

from __future__ import annotations

import pytest

from burnish.errors import ConfigError
from burnish.objectives.checks import check_columns, check_settings
from burnish.objectives.facts import FACTS
from burnish.objectives.table import ALIASES, LISTS, PAIRED, find_objective, used_settings


@pytest.mark.parametrize(
    ("loss_types", "given", "message"),
    [
        (["hinge"], {"label_smoothing": 0.1}, "label_smoothing is used by sigmoid, exo_pair, robust"),
        (["sigmoid"], {"discopop_tau": 0.1}, "discopop_tau is used by discopop, and not by sigmoid"),
        (["sigmoid", "ipo"], {"dpop_lambda": 5.0}, "dpop_lambda is used by dpop, and not by sigmoid and ipo"),
        (["cpo"], {"simpo_gamma": 0.5}, "simpo_gamma is used by simpo, alphapo"),
        (["sft"], {"ld_alpha": 0.5}, "ld_alpha is used by"),
        (["sft"], {"use_weighting": True}, "use_weighting is used by"),
        (["sigmoid", "aot"], {"use_weighting": True}, "use_weighting cannot weigh the pairs of aot"),
        (
            ["sigmoid", "nca_pair"],
            {"f_divergence_type": "forward_kl"},
            "f_divergence_type forward_kl is for .* nca_pair",
        ),
        (["simpo"], {"beta": 2.0, "f_divergence_type": "forward_kl"}, "f_divergence_type is used by"),
        (["sigmoid"], {"f_divergence_type": "kl"}, "f_divergence_type must be one of reverse_kl"),
        (["sigmoid"], {"f_alpha_divergence_coef": 0.3}, "f_alpha_divergence_coef is used by f_divergence_type alpha"),
        (["sigmoid"], {"beta": 0.0}, "beta must be greater than 0"),
        (["sigmoid"], {"beta": -1.0}, "beta must be greater than 0"),
        (["sigmoid"], {"beta": float("nan")}, "beta must be greater than 0"),
        (["robust"], {"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        (["sigmoid"], {"label_smoothing": -0.1}, r"label_smoothing must be in \[0, 0.5\)"),
        (["sigmoid"], {"ld_alpha": 1.5}, r"ld_alpha must be in \[0, 1\]"),
        (["discopop"], {"discopop_tau": 0.0}, "discopop_tau must be greater than 0"),
        (["exo_pair"], {}, "exo_pair takes the logarithm of label_smoothing"),
        (["exo_pair"], {"label_smoothing": 0.0}, "exo_pair takes the logarithm of label_smoothing"),
        (["simpo"], {}, "simpo has no reference, and its beta is of another size"),
        (["alphapo"], {}, "alphapo has no reference"),
        (["sigmoid_nrom"], {}, "did you mean sigmoid_norm"),
        (["zzz"], {}, "loss_type 'zzz' is unknown: There are sigmoid"),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(loss_types, given, message):
    with pytest.raises(ConfigError, match=message):
        check_settings(loss_types, given)


@pytest.mark.parametrize(
    ("loss_types", "given"),
    [
        (["sigmoid"], {"beta": 0.1, "label_smoothing": 0.1}),
        (["hinge", "sigmoid"], {"label_smoothing": 0.1}),
        (["ipo"], {"beta": 0.5, "learning_rate": 1e-6}),
        (["hinge"], {"label_smoothing": None, "use_weighting": False}),
        (["sft"], {"f_divergence_type": "forward_kl"}),
        (["nca_pair"], {"f_divergence_type": "reverse_kl"}),
        (["sigmoid"], {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3}),
        (["sigmoid", "bco_pair", "sft"], {"use_weighting": True, "ld_alpha": 0.5}),
        (["exo_pair"], {"label_smoothing": 0.001}),
        (["alphapo"], {"beta": 2.5, "simpo_gamma": 0.1, "alphapo_alpha": 0.0}),
        (["orpo"], {"orpo_nll_on_prompt": True}),
    ],
)
def test_settings_that_some_objective_uses_are_accepted(loss_types, given):
    check_settings(loss_types, given)


@pytest.mark.parametrize(
    ("loss_types", "columns", "weighted", "message"),
    [
        (["odpo"], [], False, "odpo needs a margin in every row"),
        (["hinge"], ["margin"], False, "the column margin is used by sigmoid"),
        (["hinge"], ["label_smoothing"], False, "the column label_smoothing is used by"),
        (["aot"], ["margin"], False, "aot sorts the step's values"),
        (["sigmoid", "aot_unpaired"], [], True, "cannot honour the rows' weight"),
    ],
)
def test_columns_that_would_be_ignored_are_refused(loss_types, columns, weighted, message):
    with pytest.raises(ConfigError, match=message):
        check_columns(loss_types, columns, weighted=weighted)


def test_columns_that_are_used_or_unknown_pass():
    check_columns(["sigmoid", "hinge"], ["margin", "label_smoothing", "source"], weighted=True)
    check_columns(["odpo"], ["margin"])
    check_columns(["aot"], [])


def test_the_margin_is_used_by_the_objectives_that_say_so():
    users = {name for name, objective in PAIRED.items() if objective.uses_margin}
    assert users == {"sigmoid", "sigmoid_norm", "robust", "dpop", "simpo", "cpo", "odpo"}


def test_label_smoothing_is_used_by_the_objectives_that_say_so():
    users = {name for name, objective in PAIRED.items() if "label_smoothing" in objective.settings}
    assert users == {"sigmoid", "exo_pair", "robust", "aot", "aot_unpaired", "cpo", "simpo"}


def test_state_of_the_run_is_no_setting():
    assert find_objective("bco_pair").settings == ("beta",)
    assert find_objective("bco_pair").uses_reward_baseline


@pytest.mark.parametrize("name", PAIRED)
def test_the_stated_settings_are_those_that_the_functions_take(name):
    objective = PAIRED[name]
    functions = [function for function in (objective.function, objective.likelihood) if function is not None]
    assert set(FACTS[name].settings) == set(used_settings(*functions))
    assert set(FACTS) == set(PAIRED) | set(LISTS) | set(ALIASES)
