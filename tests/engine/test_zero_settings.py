"""DeepSpeed's JSON: "auto" is filled, what agrees passes, and what contradicts a setting is told with key and cure."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from burnish.device.ranks import Ranks
from burnish.engine.zero_settings import fill_zero, read_zero
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOConfig
from burnish.methods.zero import zero_options

TEMPLATE: dict[str, Any] = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_min_lr": "auto", "total_num_steps": "auto"}},
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "none", "pin_memory": True},
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "stage3_max_live_parameters": 1e9,
        "sub_group_size": 1e9,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
"""transformers' own template, but for what its last part offloads."""


def fill(options: dict[str, Any], *, precision: str = "fp32", **settings: Any) -> dict[str, Any]:
    config = DPOConfig(**settings)
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps * 4
    batch_size = config.global_batch_size or size
    return fill_zero(read_zero(options), config, batch_size=batch_size, num_ranks=4, precision=precision)


def test_a_template_of_auto_is_filled_by_our_settings() -> None:
    assert fill(TEMPLATE) == {"zero_optimization": {"stage": 2, "overlap_comm": True}}


def test_what_agrees_with_our_settings_passes() -> None:
    same = {
        "train_batch_size": 24,
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 2e-6, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0}},
        "communication_data_type": "fp32",
        "zero_optimization": {"stage": 1},
    }
    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "learning_rate": 2e-6}
    filled = fill(same, precision="bf16", **settings)
    assert filled == {"communication_data_type": "fp32", "zero_optimization": {"stage": 1}}
    by_product = {**same, "train_batch_size": 32, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 1}
    assert fill(by_product, precision="auto", global_batch_size=32, learning_rate=2e-6)


@pytest.mark.parametrize(
    ("change", "key", "cure"),
    [
        ({"train_batch_size": 32}, "train_batch_size is 32, and this run has 64", "--global_batch_size 32"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps make 2 × 4 × 4", "--gradient_accumulation"),
        ({"train_micro_batch_size_per_gpu": True}, "train_micro_batch_size_per_gpu is True", "auto"),
        ({"gradient_clipping": 0.5}, "gradient_clipping is 0.5, and this run has 1.0", "--max_grad_norm 0.5"),
        ({"bf16": {"enabled": True}}, "bf16.enabled is true, and this run computes in fp32", "--precision bf16"),
        ({"fp16": {"enabled": True}}, "fp16", "--precision bf16"),
        ({"optimizer": {"type": "Lamb"}}, "optimizer.type is 'Lamb'", "leave the section out"),
        ({"optimizer": {"params": {"lr": 1e-3}}}, "optimizer.params.lr is 0.001", "--learning_rate"),
        ({"optimizer": {"params": {"freeze_step": 3}}}, "optimizer.params.freeze_step", "eave it out"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler.type is 'WarmupLR'", "--lr_scheduler_type constant_with"),
        ({"scheduler": {"type": "OneCycle"}}, "scheduler.type is 'OneCycle'", "eave the section out"),
        ({"scheduler": {"params": {"warmup_num_steps": 9}}}, "scheduler.params.warmup_num_steps", "--warmup_steps"),
    ],
)
def test_what_contradicts_a_setting_is_told_with_its_key_and_the_cure(
    change: dict[str, Any], key: str, cure: str
) -> None:
    with pytest.raises(ConfigError) as told:
        fill({**TEMPLATE, **change})
    assert key in str(told.value)
    assert cure in str(told.value)
    assert len(str(told.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "zero_optimization is missing"),
        ({"zero_optimization": {"stage": 3}}, "--parallel fsdp spreads weights too"),
        ({"zero_optimization": {"stage": 0}}, "stages 1 and 2"),
        ({"zero_optimization": {"stage": True}}, "stages 1 and 2"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, "offload_optimizer is nothing"),
        ({"zero_optimization": {"stage": 2, "zero_quantized_gradients": True}}, "zero_quantized_gradients is nothing"),
        ({"zero_optimization": {"stage": 1}, "activation_checkpointing": {}}, "--gradient_checkpointing"),
        ({"zero_optimization": {"stage": 2, "round_robin_gradients": True}}, "round_robin_gradients is nothing"),
        ({"zero_optimization": {"stage": 1}, "optimizer": "AdamW"}, "optimizer is 'AdamW'"),
    ],
)
def test_what_burnish_has_not_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        DPOConfig(deepspeed=options)


def test_a_file_is_read_and_one_that_can_not_be_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(TEMPLATE))
    assert read_zero(str(file)) == TEMPLATE
    for text, says in (("{", "not JSON"), ("[1]", "list")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says):
            read_zero(str(file))
    with pytest.raises(ConfigError, match="can't be read"):
        read_zero(str(tmp_path / "none.json"))


@pytest.mark.parametrize("settings", [{"parallel": "fsdp"}, {"precision": "fp16"}])
def test_what_does_not_go_together_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--deepspeed"):
        DPOConfig(deepspeed={"zero_optimization": {"stage": 1}}, **settings)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install \"burnish\[deepspeed\]\""):
        zero_options(DPOConfig(deepspeed={"zero_optimization": {"stage": 1}}), Ranks(), 16)
    assert zero_options(DPOConfig(), Ranks(), 16) is None
