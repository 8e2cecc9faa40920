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


@pytest.mark.parametrize("setting", ["reference_free", "sync_ref_model", "beta_dpo_alpha"])
@pytest.mark.parametrize("name", ["simpo", "cpo", "orpo", "alphapo"])
def test_what_moves_or_leaves_out_a_reference_is_refused_where_there_is_none(name: str, setting: str) -> None:
    words = ["--loss_type", name, "--beta", "2", f"--{setting}", "0.6" if setting == "beta_dpo_alpha" else "true"]
    with pytest.raises(ConfigError, match=f"--{setting}: {name} compares with no reference; leave it out"):
        parse_arguments(words, DPOConfig)
