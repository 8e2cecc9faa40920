"""A setting that an objective does not use is an error that names those that do, through the command line."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.cli.arguments import parse_arguments
from burnish.errors import ConfigError
from burnish.methods.dpo import OBJECTIVE_SETTINGS, DPOConfig
from burnish.objectives.checks import uses
from burnish.objectives.facts import FACTS

OTHER_VALUES: dict[str, Any] = {
    "beta": 2.0, "label_smoothing": 0.1, "f_divergence_type": "forward_kl", "f_alpha_divergence_coef": 0.3,
    "ld_alpha": 0.5, "use_weighting": True, "discopop_tau": 0.1, "dpop_lambda": 5.0, "simpo_gamma": 1.0,
    "cpo_alpha": 0.5, "orpo_nll_on_prompt": True, "alphapo_alpha": 0.5,
}  # fmt: skip
"""A value of each setting that is not its default."""


def test_every_setting_of_objectives_is_tried() -> None:
    assert set(OTHER_VALUES) == set(OBJECTIVE_SETTINGS)


@pytest.mark.parametrize("setting", [name for name in OBJECTIVE_SETTINGS if name != "beta"])
@pytest.mark.parametrize("name", FACTS)
def test_an_objective_takes_a_setting_or_an_error_names_those_that_do(name: str, setting: str) -> None:
    words = ["--loss_type", name, "--beta", "2", f"--{setting}", str(OTHER_VALUES[setting])]
    if name == "exo_pair" and setting != "label_smoothing":
        words += ["--label_smoothing", "0.1"]  # it needs one
    if setting == "f_alpha_divergence_coef":
        words += ["--f_divergence_type", "alpha_divergence"]
    users = [other for other, facts in FACTS.items() if uses(facts, setting)]
    if name in users:
        assert getattr(parse_arguments(words, DPOConfig).config, setting) == OTHER_VALUES[setting]
        return
    if setting.startswith("f_") and FACTS[name].takes_divergence:
        return  # a term that has no divergence beside it: accepted, for its rewards are those of the divergence
    with pytest.raises(ConfigError) as caught:
        parse_arguments(words, DPOConfig)
    told = str(caught.value)
    assert setting in told or "f_divergence_type" in told
    assert all(user in told for user in users), told


OF_A_REFERENCE = {
    "reference_free": "true", "sync_ref_model": "true", "beta_dpo_alpha": "0.6", "ref_model_name_or_path": "other",
    "ref_dtype": "bfloat16", "precompute_ref_log_probs": "true",
}  # fmt: skip
"""Settings that say something of a reference, with a value."""


@pytest.mark.parametrize("setting", OF_A_REFERENCE)
@pytest.mark.parametrize("name", ["simpo", "cpo", "orpo", "alphapo"])
def test_what_is_said_of_a_reference_is_refused_where_there_is_none(name: str, setting: str) -> None:
    words = ["--loss_type", name, "--beta", "2", f"--{setting}", OF_A_REFERENCE[setting]]
    with pytest.raises(ConfigError, match=f"--{setting}: {name} compares with no reference; leave it out"):
        parse_arguments(words, DPOConfig)


@pytest.mark.parametrize("setting", ["ref_model_name_or_path", "ref_dtype", "precompute_ref_log_probs"])
def test_a_reference_is_not_named_and_left_out_at_once(setting: str) -> None:
    words = ["--reference_free", f"--{setting}", OF_A_REFERENCE[setting]]
    with pytest.raises(ConfigError, match=f"--{setting}: --reference_free loads no reference"):
        parse_arguments(words, DPOConfig)


def test_a_likelihood_alone_has_a_reference_for_its_metrics_and_no_beta() -> None:
    words = ["--loss_type", "sft", "--ref_model_name_or_path", "other"]
    assert parse_arguments(words, DPOConfig).config.ref_model_name_or_path == "other"
    with pytest.raises(ConfigError, match="--beta_final: sft has no beta"):
        parse_arguments(["--loss_type", "sft", "--beta_final", "0.2"], DPOConfig)
