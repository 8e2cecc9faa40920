"""A TRL script's settings after its import was changed: they mean in Python what they mean as flags."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from burnish.cli.arguments import parse_arguments
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOConfig
from burnish.methods.kto import KTOConfig
from burnish.methods.reward import RewardConfig
from burnish.methods.sft import SFTConfig


def _config(config_type: Any = DPOConfig, **settings: Any) -> Any:
    return config_type(**settings)


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"bf16": True}, ["--bf16"]),
        ({"fp16": True, "bf16": False}, ["--fp16"]),
        ({"use_cpu": True}, ["--use_cpu"]),
        ({"save_only_model": False}, []),
        ({"report_to": "none", "eval_steps": None}, ["--report_to", "none"]),
        ({"remove_unused_columns": False, "dataloader_num_workers": 4}, []),
    ],
)
def test_a_call_means_what_the_flags_mean(settings: dict[str, Any], flags: list[str]) -> None:
    assert dataclasses.asdict(_config(**settings)) == dataclasses.asdict(parse_arguments(flags, DPOConfig).config)


def test_what_is_not_needed_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    _config(remove_unused_columns=False)
    told = capsys.readouterr().err
    assert "DPOConfig(remove_unused_columns=False): not needed; " in told


def test_what_is_not_supported_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"DPOConfig\(load_in_4bit=True\) is not supported; \w+"):
        _config(load_in_4bit=True)
    assert _config(load_in_4bit=False) == _config()


@pytest.mark.parametrize("config_type", [DPOConfig, SFTConfig, KTOConfig, RewardConfig])
def test_every_method_takes_trls_names_and_names_the_nearest_of_an_unknown_one(config_type: type) -> None:
    assert _config(config_type, bf16=True).precision == "bf16"
    with pytest.raises(ConfigError, match=r"there is no such setting; did you mean learning_rate\?"):
        _config(config_type, learning_rat=1e-4)


def test_two_names_of_one_setting_must_agree() -> None:
    assert _config(bf16=True, precision="bf16").precision == "bf16"
    with pytest.raises(ConfigError, match="another precision"):
        _config(bf16=True, precision="fp32")
