"""Fused operators in whole models: log-probabilities and gradients are the CPU's, and launches are fewer."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from builders import CONFIGS, build_group, build_model, gradients, relative_difference
from burnish.batching.layout import MicroBatch, lay_out
from burnish.device.doctor.probes.fused import fused_trials
from burnish.device.fused.fuse import fuse_operators
from burnish.device.fused.kernels import npu_attention
from burnish.device.fused.table import FUSABLE, OPERATORS
from burnish.device.pick import Device, pick_device
from burnish.scoring.scorer import Scorer
from npu.recorder import OF_OPERATOR, FusedCalls
from npu.simulator.log import LAUNCHED

DOCS = Path(__file__).parents[3] / "docs"
VENDOR = importlib.import_module("torch_npu")
KERNELS = (
    "npu_cross_entropy_loss",
    "npu_cross_entropy_loss_backward",
    "npu_fusion_attention",
    "npu_rms_norm",
    "npu_rotary_mul",
    "npu_swiglu",
)
LAYERS = 3
"""Of each model here, with 4 query heads and 2 key heads."""
ARCHITECTURES = ["qwen2", "qwen3", "llama", "mistral-window", "granite"]


@pytest.fixture(scope="module")
def device() -> Device:
    return pick_device("npu")


def _batch(device: Device | None = None, *, shared: bool = True) -> MicroBatch:
    generator = np.random.default_rng(3)
    groups = [build_group(generator, prompt=p, completions=(a, b)) for p, a, b in ((9, 7, 3), (2, 5, 6), (1, 1, 2))]
    batch = lay_out(groups, shared=shared, pad_id=0)
    return batch if device is None else batch.to(device.torch_device)


def _on(device: Device, architecture: str) -> Any:
    model: Any = build_model(architecture)
    return model.to(device.torch_device)


def _score(model: Any, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities, and the gradient of their weighted sum."""
    logps = Scorer(model)(batch).token_logps
    (logps * torch.linspace(-1, 1, len(logps)).to(logps.device)).sum().backward()
    return logps.detach().cpu(), gradients(model).cpu()


@pytest.mark.parametrize("shared", [True, False], ids=["tree rows", "separate rows"])
@pytest.mark.parametrize("operator", [*OPERATORS, "auto"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_and_gradients_are_the_cpus(device: Device, architecture: str, operator: str, shared: bool) -> None:
    expected = _score(build_model(architecture), _batch(shared=shared))
    model = _on(device, architecture)
    used = fuse_operators(model, device, [operator])
    assert used == (sorted(OPERATORS) if operator == "auto" else [operator])
    with FusedCalls() as calls:
        logps, gradient = _score(model, _batch(device, shared=shared))
    assert calls.operators == set(used)
    torch.testing.assert_close(logps, expected[0], rtol=1e-5, atol=2e-5)
    assert relative_difference(gradient, expected[1]) < 1e-5


@pytest.mark.parametrize("asked", ["none", *OPERATORS])
def test_each_is_switched_off_by_not_naming_it(device: Device, asked: str) -> None:
    model = _on(device, "qwen2")
    fuse_operators(model, device, [asked])
    with FusedCalls() as calls:
        _score(model, _batch(device))
    assert calls.operators == {asked} - {"none"}


@pytest.mark.parametrize(("asked", "key_heads", "inversions"), [("attention", 2, 1), ("none", 4, LAYERS)])
def test_attention_off_is_torchs_own_with_its_copies(
    device: Device, asked: str, key_heads: int, inversions: int
) -> None:
    """Both end in the vendor's operator, once a layer; off, each layer copies key heads and inverts the mask again."""
    model = _on(device, "qwen2")
    fuse_operators(model, device, [asked])
    batch = _batch(device)
    LAUNCHED.clear()
    with FusedCalls() as calls:
        _score(model, batch)
    assert calls.key_heads == [key_heads] * LAYERS
    assert LAUNCHED["aten::logical_not"] == inversions
    assert LAUNCHED[OF_OPERATOR["attention"]] == LAUNCHED[f"{OF_OPERATOR['attention']}_grad"] == LAYERS


def test_fused_operators_launch_fewer_kernels(device: Device) -> None:
    launches = {}
    for asked in ("none", *OPERATORS, "auto"):
        model = _on(device, "qwen2")
        fuse_operators(model, device, [asked])
        batch = _batch(device)
        LAUNCHED.clear()
        _score(model, batch)
        launches[asked] = sum(LAUNCHED.values())
    assert all(launches[name] < launches["none"] for name in OPERATORS), launches
    for language in ("en", "zh"):
        said = (DOCS / language / "ascend.md").read_text("utf-8")
        assert all(re.search(rf"\b{launches[name]}\b", said) for name in ("auto", "none")), launches


def test_one_mask_launches_fewer_kernels_than_packed_sequences(device: Device) -> None:
    """Why attention takes a boolean mask: packed (TND) attention must gather each completion's view of its prompt."""
    heads, width, prompt, completions = 4, 8, 9, (7, 3)
    total = prompt + sum(completions)
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(1, heads, total, width, generator=generator) for _ in range(3)]
    segments = torch.tensor([0] * prompt + [i for i, n in enumerate(completions, 1) for _ in range(n)])
    visible = ((segments[None] == 0) | (segments[None] == segments[:, None])) & torch.ones(total, total).tril().bool()
    results = {}
    for form in ("mask", "packed"):
        leaves = [value.to(device.torch_device).requires_grad_() for value in start]
        mask = visible.to(device.torch_device)[None, None]
        seen, keys = [*range(prompt)], [prompt]
        for i in range(1, len(completions) + 1):
            seen += [*range(prompt), *segments.eq(i).nonzero().flatten().tolist()]
            keys.append(len(seen))
        indices = torch.tensor(seen, device=device.torch_device)
        causal = torch.triu(torch.ones(2048, 2048, dtype=torch.bool, device=device.torch_device), 1)
        LAUNCHED.clear()
        if form == "mask":
            output = npu_attention(torch.nn.Identity(), leaves[0], leaves[1], leaves[2], mask)[0]
        else:
            query, key, value = (leaf[0].transpose(0, 1) for leaf in leaves)
            output = importlib.import_module("torch_npu").npu_fusion_attention(
                *(query, key.index_select(0, indices), value.index_select(0, indices), heads, "TND"),
                atten_mask=causal,
                scale=width**-0.5,
                actual_seq_qlen=[prompt, prompt + completions[0], total],
                actual_seq_kvlen=keys,
                sparse_mode=3,
            )[0][None]
        output.backward(torch.linspace(-1, 1, output.numel()).reshape(output.shape).to(device.torch_device))
        results[form] = (sum(LAUNCHED.values()), [output.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)])  # pyright: ignore[reportOptionalMemberAccess]
    for one, other in zip(results["mask"][1], results["packed"][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert results["mask"][0] < results["packed"][0]


def test_a_window_without_a_mask_is_refused(device: Device) -> None:
    query = torch.zeros(1, 2, 8, 4, device=device.torch_device)
    with pytest.raises(ValueError, match="a sliding window of 4 tokens came without a mask"):
        npu_attention(torch.nn.Identity(), query, query, query, None, sliding_window=4)


def test_a_model_on_the_cpu_is_left_alone_beside_one_on_the_npu(device: Device) -> None:
    before = _score(build_model("qwen2"), _batch())
    fuse_operators(_on(device, "qwen2"), device, ["auto"])
    model = build_model("qwen2")
    assert fuse_operators(model, Device("cpu", torch.device("cpu"), ""), ["auto"]) == []
    after = _score(model, _batch())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_the_table_leaves_out_stays_plain(device: Device) -> None:
    model = _on(device, "gemma2")
    assert CONFIGS["gemma2"].model_type not in FUSABLE
    assert fuse_operators(model, device, ["auto"]) == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_doctor_finds_a_right_operator_right(operator: str) -> None:
    measured, limit = fused_trials()[f"fused_{operator}"](torch, "npu:0")
    assert measured < limit


def _without_mask(*inputs: Any, atten_mask: Any, **settings: Any) -> Any:
    return VENDOR.npu_fusion_attention(*inputs, atten_mask=torch.zeros_like(atten_mask), **settings)


def _with_stopped_keys(query: torch.Tensor, key: torch.Tensor, *rest: Any, **settings: Any) -> Any:
    return VENDOR.npu_fusion_attention(query, key.detach(), *rest, **settings)


def _with_stopped_weight(x: torch.Tensor, weight: torch.Tensor, eps: float) -> Any:
    return VENDOR.npu_rms_norm(x, weight.detach(), eps)


def _turned_without_gradient(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> Any:
    return VENDOR.npu_rotary_mul(x.detach(), cosine, sine)


def _without_weight(x: torch.Tensor, weight: torch.Tensor, eps: float) -> Any:
    return VENDOR.npu_rms_norm(x, torch.ones_like(weight), eps)


def _turned_back(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> Any:
    return VENDOR.npu_rotary_mul(x, cosine, -sine)


def _with_stopped_gradient(joined: torch.Tensor, dim: int) -> Any:
    """The right value, and the gradient of one half alone."""
    gate, up = joined.chunk(2, dim)
    return VENDOR.npu_swiglu(torch.cat((gate.detach(), up), dim), dim=dim)


def _without_target(logits: torch.Tensor, targets: torch.Tensor, reduction: str) -> Any:
    return VENDOR.npu_cross_entropy_loss(logits, torch.zeros_like(targets), reduction=reduction)


def _of_softmax_alone(grad: torch.Tensor, log_probs: torch.Tensor, targets: torch.Tensor, reduction: str) -> Any:
    return log_probs.exp() * grad[:, None]


@pytest.mark.parametrize(
    ("operator", "name", "wrong"),
    [
        ("attention", "npu_fusion_attention", _without_mask),
        ("attention", "npu_fusion_attention", _with_stopped_keys),
        ("cross_entropy", "npu_cross_entropy_loss", _without_target),
        ("cross_entropy", "npu_cross_entropy_loss_backward", _of_softmax_alone),
        ("rms_norm", "npu_rms_norm", _without_weight),
        ("rms_norm", "npu_rms_norm", _with_stopped_weight),
        ("rotary", "npu_rotary_mul", _turned_back),
        ("rotary", "npu_rotary_mul", _turned_without_gradient),
        ("swiglu", "npu_swiglu", _with_stopped_gradient),
    ],
)
def test_the_doctor_finds_a_wrong_value_and_a_wrong_gradient(
    operator: str, name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = SimpleNamespace(**{kernel: getattr(VENDOR, kernel) for kernel in KERNELS} | {name: wrong})
    for room in ("kernels", "cross_entropy"):
        monkeypatch.setattr(f"burnish.device.fused.{room}.vendor", lambda: card)
    measured, limit = fused_trials()[f"fused_{operator}"](torch, "npu:0")
    assert measured > limit
