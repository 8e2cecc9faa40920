"""DPO steps of real shapes without their memory: FakeTensors on the NPU, through the vendor's meta and autograd code.

They carry shapes, dtypes and devices, and raise where two devices meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, Qwen2Config

from builders import build_groups
from burnish.batching.layout import MicroBatch, lay_out
from burnish.device.fused.fuse import fuse_operators
from burnish.device.optimizer import build_adamw
from burnish.device.pick import pick_device
from burnish.engine.method import Scored
from burnish.methods.dpo import DPOConfig
from burnish.methods.preference import PreferenceMethod

QWEN2_05B = Qwen2Config(
    vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
WIDE_7B = Qwen2Config(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=2, num_attention_heads=28,
    num_key_value_heads=4, tie_word_embeddings=False,
)  # fmt: skip
"""The widths of Qwen2-7B, two layers of its 28: the others are alike."""
SHAPES = pytest.mark.parametrize("config", [QWEN2_05B, WIDE_7B], ids=["Qwen2-0.5B", "7B-wide"])
MET = ("input_ids", "position_ids", "segment_ids", "predictors", "targets", "completion_of", "offset_of", "weight")
"""Tensors of a micro-batch that meet others on the device in a step of the default objective."""
MIX = pytest.raises(RuntimeError, match=r"same device, but found at least two devices, (npu:0 and cpu|cpu and npu:0)!")


@pytest.fixture(autouse=True)
def _fake() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.fixture
def device() -> torch.device:
    return pick_device("npu").torch_device


@pytest.fixture
def batch(device: torch.device) -> MicroBatch:
    return lay_out(build_groups(0), shared=True, pad_id=0).to(device)


def _build(config: PreTrainedConfig, device: torch.device) -> Any:
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    assert "attention" in fuse_operators(model, pick_device("npu"), ["auto"])
    return model


def _step(model: Any, batch: MicroBatch, reference: torch.device | None = None) -> torch.Tensor:
    """Scores of the reference and of the policy, the loss and its metrics, gradients, clipping, AdamW; gives the loss.

    Args:
        model: the policy; a model of its shape is the reference.
        batch: on the model's device, or partly.
        reference: where the reference's scores are left; None for the device.
    """
    method = PreferenceMethod(DPOConfig())
    scorer = method.build_scorer(model, token_metrics=True)
    with torch.autocast("npu", torch.bfloat16):
        with torch.no_grad():
            said = scorer(batch)
        scores = scorer(batch)
    assert scores.logps.dtype == torch.float32
    if reference is not None:
        said = replace(said, logps=said.logps.to(reference), token_logps=said.token_logps.to(reference))
    share = method.loss(Scored(batch, scores, said), method.denominators(batch.groups))
    share.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
    build_adamw([{"params": list(model.parameters())}], kind="npu", precision="bf16", lr=1e-3).step()
    return share.loss


@SHAPES
def test_a_step_of_this_shape_goes_through(config: PreTrainedConfig, device: torch.device, batch: MicroBatch) -> None:
    model = _build(config, device)
    assert _step(model, batch).dtype == torch.float32
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.device == parameter.device == device


@SHAPES
@pytest.mark.parametrize("name", MET)
def test_a_tensor_of_the_batch_left_on_the_cpu_is_rejected(
    config: PreTrainedConfig, name: str, device: torch.device, batch: MicroBatch
) -> None:
    model = _build(config, device)
    left: Any = {name: getattr(batch, name).to("cpu")}
    with MIX:
        _step(model, replace(batch, **left))


@SHAPES
@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj", "model.layers.1.post_attention_layernorm", "lm_head"])
def test_a_weight_left_on_the_cpu_is_rejected(
    config: PreTrainedConfig, name: str, device: torch.device, batch: MicroBatch
) -> None:
    model = _build(config, device)
    module = model.get_submodule(name)
    module.weight = torch.nn.Parameter(torch.empty_like(module.weight, device="cpu"))
    with MIX:
        _step(model, batch)


@SHAPES
def test_a_references_scores_left_on_the_cpu_are_rejected(
    config: PreTrainedConfig, device: torch.device, batch: MicroBatch
) -> None:
    model = _build(config, device)
    with MIX:
        _step(model, batch, reference=torch.device("cpu"))
