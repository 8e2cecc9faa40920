"""Two faults of the common stack that raise nothing: neither is here, and both are shown to exist there."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from transformers import MistralConfig

from builders import CONFIGS, SIZES, build_groups, build_model
from burnish.batching.layout import lay_out
from burnish.device.optimizer import build_adamw
from burnish.device.pick import pick_device
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOConfig
from burnish.scoring.scorer import Scorer
from npu.simulator.log import LAUNCHED

NPU = torch.device("npu")
STEPS = 4


def _train(build: Any, device: torch.device) -> torch.Tensor:
    """Weights after steps whose gradients are set to None between, as our loop and transformers' Trainer do."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(16, 8, generator=generator).to(device))
    optimizer = build([weight])
    for _ in range(STEPS):
        rows = torch.randn(12, 16, generator=generator).to(device)
        (rows @ weight).tanh().square().sum().backward()
        optimizer.step()
        weight.grad = None
    return weight.detach().cpu()


def _ours(kind: Any) -> Any:
    return lambda weights: build_adamw([{"params": weights}], kind=kind, precision="bf16", lr=0.01)


def test_no_step_uses_the_gradients_of_an_earlier_one() -> None:
    expected = _train(lambda weights: torch.optim.AdamW(weights, lr=0.01, foreach=False), torch.device("cpu"))
    LAUNCHED.clear()
    ours = _train(_ours("npu"), NPU)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert LAUNCHED["aten::_fused_adamw_"] == STEPS
    assert LAUNCHED["aten::sqrt"] == 0


def test_the_vendors_optimizer_still_has_the_fault_that_this_watches_for() -> None:
    vendors = importlib.import_module("torch_npu").optim.NpuFusedAdamW
    expected = _train(lambda weights: torch.optim.AdamW(weights, lr=0.01, foreach=False), torch.device("cpu"))
    stale = _train(lambda weights: vendors(weights, lr=0.01), NPU)
    assert (stale - expected).abs().max() > 1e-3, "the vendor has mended it: the notes to users can go"


@pytest.mark.parametrize("shared", [True, False])
def test_a_sliding_window_is_not_dropped(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistral with a window of 5 over rows of up to 36 tokens, fused operators on."""
    from burnish.device.fused.fuse import fuse_operators

    groups = build_groups(1)
    expected = Scorer(build_model("mistral-window"))(lay_out(groups, shared=shared, pad_id=0)).token_logps.detach()
    monkeypatch.setattr(CONFIGS["mistral-window"], "sliding_window", None)
    whole = build_model("mistral-window")
    without = Scorer(whole)(lay_out(groups, shared=shared, pad_id=0)).token_logps.detach()
    monkeypatch.undo()
    device = pick_device("npu")
    model = build_model("mistral-window").to(device.torch_device)  # pyright: ignore[reportArgumentType]
    assert "attention" in fuse_operators(model, device, ["auto"])
    batch = lay_out(groups, shared=shared, pad_id=0).to(device.torch_device)
    logps = Scorer(model)(batch).token_logps.detach().cpu()
    assert (without - expected).abs().max() > 0.01, "the window matters here"
    torch.testing.assert_close(logps, expected, rtol=1e-5, atol=2e-5)


def test_transformers_flash_attention_still_has_the_fault_that_this_watches_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = torch.arange(3, 39)[None]

    def logits(window: int | None, attention: str, device: torch.device) -> torch.Tensor:
        monkeypatch.setitem(CONFIGS, "mistral-window", MistralConfig(**SIZES, sliding_window=window))
        model: Any = build_model("mistral-window")
        model.config._attn_implementation = attention
        with torch.no_grad():
            return model.to(device)(input_ids=ids.to(device), use_cache=False).logits.cpu()

    on_host = torch.device("cpu")
    windowed, whole = (logits(window, "sdpa", on_host) for window in (5, None))
    dropped = logits(5, "flash_attention_2", NPU)
    assert (dropped - windowed).abs().max() > 1, "transformers has mended it: the refusal and the notes can go"
    torch.testing.assert_close(dropped, whole, rtol=1e-5, atol=5e-5)


def test_the_attention_that_drops_windows_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="attn_implementation"):
        DPOConfig(attn_implementation="flash_attention_2")  # pyright: ignore[reportArgumentType]
