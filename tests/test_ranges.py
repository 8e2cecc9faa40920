"""The range that a setting's docstring states is the range that is checked, in Python as on the command line."""

import math
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.cli.help import field_docs
from burnish.data.settings import RANGES as DATA
from burnish.engine.settings import RANGES as TRAINING
from burnish.errors import ConfigError
from burnish.methods.dpo import RANGES as METHOD
from burnish.methods.dpo import DPOConfig
from burnish.models.settings import ADAPTER_RANGES as ADAPTER
from burnish.models.settings import MOVING_RANGES as MOVING
from burnish.models.settings import ROUTER_RANGES as ROUTER
from burnish.ranges import Range

RANGES = {**DATA, **TRAINING, **METHOD, **ADAPTER, **MOVING, **ROUTER}


USED_BY = {
    "dpop_lambda": "dpop", "cpo_alpha": "cpo", "simpo_gamma": "simpo", "alphapo_alpha": "alphapo",
    "discopop_tau": "discopop",
}  # fmt: skip
"""Settings that an objective must be chosen for."""


def build(**settings: Any) -> DPOConfig:
    users = [objective for name, objective in USED_BY.items() if name in settings]
    extra: dict[str, Any] = {"loss_type": users, "beta": 1.0} if users else {}
    if "f_alpha_divergence_coef" in settings:
        extra["f_divergence_type"] = "alpha_divergence"
    if any(name.startswith("ref_model_") for name in settings):
        extra["sync_ref_model"] = True
    return DPOConfig(**(extra | settings))


def test_every_number_has_a_range():
    kinds = typing.get_type_hints(DPOConfig)
    numbers = {name for name, kind in kinds.items() if kind in (int, float, int | None, float | None)}
    assert numbers == set(RANGES)


@pytest.mark.parametrize("name", list(RANGES))
def test_the_range_stands_in_the_docstring(name: str):
    assert str(RANGES[name]) in field_docs(DPOConfig)[name]


@pytest.mark.parametrize("name", list(RANGES))
def test_a_value_just_outside_is_refused_and_the_edge_is_accepted(name: str):
    allowed = RANGES[name]
    if allowed.least is not None:
        kind = int if allowed.whole else float
        build(**{name: kind(allowed.least)})
        with pytest.raises(ConfigError, match=rf"^--{name} .*must be "):
            build(**{name: kind(allowed.least - 1)})
    edge = allowed.above if allowed.above is not None else allowed.below
    if edge is not None:
        with pytest.raises(ConfigError, match=rf"^--{name} .*must be "):
            build(**{name: edge})


@pytest.mark.parametrize("name", list(RANGES))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", True])
def test_what_is_no_finite_number_is_refused_everywhere(name: str, value: Any):
    with pytest.raises(ConfigError, match=rf"^--{name} "):
        build(**{name: value})


@given(st.floats(allow_nan=False), st.integers(-3, 3), st.integers(1, 3))
def test_a_range_holds_what_its_words_say(value: float, low: int, length: int):
    high = low + length
    assert (value in Range(least=low, below=high)) == (low <= value < high)
    assert (value in Range(above=low, most=high)) == (low < value <= high)
    assert (value in Range(least=low)) == (math.isfinite(value) and value >= low)
    assert str(Range(least=low, below=high)) == f"in [{low}, {high})"
    assert str(Range(above=low, most=high)) == f"in ({low}, {high}]"


@pytest.mark.parametrize("name", ["logging_steps", "eval_steps", "save_steps", "warmup_steps"])
def test_steps_are_whole_or_a_share(name: str):
    build(**{name: 0.25})
    build(**{name: 25.0})
    with pytest.raises(ConfigError, match="whole from 1 on"):
        build(**{name: 2.5})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"truncation_mode": "keep_middle"}, "must be one of keep_start, keep_end, drop"),
        ({"precision": "fp64"}, "must be one of auto, fp32, bf16, fp16"),
        ({"eval_strategy": "sometimes"}, "must be one of no, steps, epoch, none"),
        ({"num_samples": 1.5}, "must be a whole number"),
        ({"loss_type": []}, "at least one objective"),
        ({"loss_type": ["ipo", "ipo"]}, "an objective twice"),
        ({"loss_type": ["sigmoid"], "loss_weights": [math.nan]}, "must be finite"),
        ({"lora_target_modules": []}, "names nothing"),
        ({"dataset_train_split": ""}, "must be the name of a split"),
    ],
)
def test_the_python_api_refuses_what_the_command_line_refuses(settings: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        build(**settings)


def test_python_takes_a_single_name_for_a_list_of_one():
    config = build(loss_type="ipo", report_to="none")
    assert (config.loss_type, config.report_to) == (["ipo"], [])


@pytest.mark.parametrize("settings", [{"load_best_model_at_end": True}, {"save_strategy": "best"}])
def test_the_best_model_needs_evaluations(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match="needs evaluations"):
        build(eval_strategy="no", **settings)
