"""Steps of real shapes without their memory: FakeTensors on the NPU, through the vendor's own meta and autograd code.

They carry shapes, dtypes and devices, and raise where two devices meet.
"""

from __future__ import annotations

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
from burnish.scoring.scorer import Scorer

QWEN2_05B = Qwen2Config(
    vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
WIDE_7B = Qwen2Config(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=2, num_attention_heads=28,
    num_key_value_heads=4, tie_word_embeddings=False,
)  # fmt: skip
"""The widths of Qwen2-7B, two layers of its 28: the others are alike."""


def _step(config: PreTrainedConfig, mode: FakeTensorMode, device: torch.device, batch: MicroBatch) -> Any:
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    fuse_operators(model, pick_device("npu"), ["auto"])
    with torch.autocast("npu", torch.bfloat16):
        scores = Scorer(model)(batch)
    torch.nn.functional.logsigmoid(scores.logps).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
    build_adamw([{"params": list(model.parameters())}], kind="npu", precision="bf16", lr=1e-3).step()
    assert mode.shape_env is None or scores.logps.shape == (batch.num_completions,)
    return model, scores


@pytest.mark.parametrize("config", [QWEN2_05B, WIDE_7B], ids=["Qwen2-0.5B", "7B-wide"])
def test_a_step_of_this_shape_goes_through(config: PreTrainedConfig) -> None:
    device = pick_device("npu").torch_device
    plain = lay_out(build_groups(0), shared=True, pad_id=0)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model, scores = _step(config, mode, device, plain.to(device))
        assert scores.logps.dtype == torch.float32
        for parameter in model.parameters():
            assert parameter.grad is not None
            assert parameter.grad.device.type == "npu"


def test_a_tensor_left_on_the_cpu_is_rejected() -> None:
    device = pick_device("npu").torch_device
    small = Qwen2Config(vocab_size=600, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
                        num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    plain = lay_out(build_groups(0), shared=True, pad_id=0)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        moved = plain.to(device)
        stays = MicroBatch(**{**{n: getattr(moved, n) for n in moved.__slots__}, "predictors": plain.predictors})
        with pytest.raises(Exception, match=r"npu.*cpu|cpu.*npu"):
            _step(small, mode, device, stays)
