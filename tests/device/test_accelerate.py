"""What accelerate's own configuration may not set up behind burnish's back."""

from __future__ import annotations

import re

import pytest
import torch

from burnish.device.launch import build_accelerator
from burnish.device.pick import Device
from burnish.device.precision import choose_precision
from burnish.errors import ConfigError

HERE = Device("cpu", torch.device("cpu"), "for a test")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ACCELERATE_USE_FSDP", "true", "(ACCELERATE_USE_FSDP): take that out of it, and say --parallel fsdp"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "say --deepspeed ds.json"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "say --parallel fsdp"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "--dynamo_backend no"),
    ],
)
def test_its_configuration_sets_nothing_up_by_itself(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=re.escape(says)):
        build_accelerator(HERE, choose_precision("fp32", HERE))


@pytest.mark.parametrize(("variable", "value"), [("ACCELERATE_USE_FSDP", "false"), ("ACCELERATE_DYNAMO_BACKEND", "no")])
def test_what_it_leaves_alone_passes(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch` sets these for every process."""
    monkeypatch.setenv(variable, value)
    assert build_accelerator(HERE, choose_precision("fp32", HERE)).num_processes == 1
