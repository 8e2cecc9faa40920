"""The head's blocks through the vendor's cross-entropy: values and gradients are the plain computation's on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders import build_model
from burnish.device.fused.cross_entropy import take_cross_entropy, takes_cross_entropy
from burnish.device.fused.fuse import fuse_operators
from burnish.device.pick import Device, pick_device
from burnish.scoring.head import HeadExtras, HeadShape, TokenScores, score_tokens
from npu.simulator.log import LAUNCHED

ROWS, HIDDEN, VOCABULARY = 13, 6, 40
FORWARD, BACKWARD = "npu::npu_cross_entropy_loss", "npu::npu_cross_entropy_loss_backward"
PLAIN_SUMS = ("aten::logsumexp", "aten::exp_", "aten::scatter_add_")
"""What the plain computation of a block launches, and the fused one does not."""
METRICS = HeadExtras(token_metrics=True, log_sum_squares=True)


@pytest.fixture(scope="module")
def device() -> Device:
    return pick_device("npu")


def _run(
    place: torch.device, *, fused: bool, frozen: bool = False, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[TokenScores, list[Tensor]]:
    """Scores of some rows, and the gradients of whatever is trained, all on the CPU."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((ROWS, HIDDEN), (VOCABULARY, HIDDEN), (VOCABULARY,))
    hidden, weight, bias = (torch.randn(*size, generator=generator).to(place, dtype) for size in sizes)
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=generator).to(place)
    leaves = [hidden] if frozen else [hidden, weight, bias]
    for leaf in leaves:
        leaf.requires_grad_()
    options = {"shape": HeadShape(), **options}
    scores = score_tokens(hidden, weight, bias, targets, fused=fused, **options)
    (scores.logps * torch.linspace(-1, 1, ROWS).to(place)).sum().backward()
    found = TokenScores._make(None if part is None else part.detach().cpu() for part in scores)
    return found, [leaf.grad.float().cpu() for leaf in leaves if leaf.grad is not None]


def _assert_equal(found: tuple[TokenScores, list[Tensor]], expected: tuple[TokenScores, list[Tensor]]) -> None:
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("kept_rows", [0, 5, ROWS], ids=["recomputed", "partly kept", "kept"])
@pytest.mark.parametrize("rows_a_block", [4, ROWS])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_block_is_the_plain_computation(
    device: Device, scale: float, rows_a_block: int, kept_rows: int, frozen: bool
) -> None:
    options = {
        "shape": HeadShape(scale=scale),
        "extras": METRICS,
        "frozen": frozen,
        "block_bytes": rows_a_block * VOCABULARY * 4,
        "kept_bytes": kept_rows * VOCABULARY * 4,
    }
    expected = _run(torch.device("cpu"), fused=False, **options)
    LAUNCHED.clear()
    _assert_equal(_run(device.torch_device, fused=True, **options), expected)
    assert LAUNCHED[FORWARD]
    assert LAUNCHED[BACKWARD] or (frozen and kept_rows)


def test_it_launches_fewer_operators(device: Device) -> None:
    launches = {}
    for fused in (False, True):
        LAUNCHED.clear()
        _run(device.torch_device, fused=fused)
        launches[fused] = sum(LAUNCHED.values())
        assert any(LAUNCHED[name] for name in PLAIN_SUMS) != fused, LAUNCHED
    assert launches[True] < launches[False], launches


def test_bfloat16_keeps_the_heads_float32_arithmetic(device: Device) -> None:
    """Log-probabilities of bfloat16 products are as near to the CPU's as the plain computation's on the same card."""
    expected = _run(torch.device("cpu"), fused=False, dtype=torch.bfloat16)
    found = _run(device.torch_device, fused=True, dtype=torch.bfloat16)
    assert found[0].logps.dtype == torch.float32
    torch.testing.assert_close(found[0].logps, expected[0].logps, rtol=1e-5, atol=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-2


@pytest.mark.parametrize(
    "options", [{"shape": HeadShape(softcap=2.0)}, {"extras": HeadExtras(normalizers=True)}], ids=["capped", "sums"]
)
def test_what_the_operator_does_not_compute_stays_plain(device: Device, options: dict[str, Any]) -> None:
    expected = _run(torch.device("cpu"), fused=False, **options)
    LAUNCHED.clear()
    _assert_equal(_run(device.torch_device, fused=True, **options), expected)
    assert not LAUNCHED[FORWARD]


def test_no_call_has_more_rows_than_the_operator_takes(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _run(torch.device("cpu"), fused=False)
    monkeypatch.setattr("burnish.scoring.head.MOST_ROWS", 5)
    LAUNCHED.clear()
    _assert_equal(_run(device.torch_device, fused=True), expected)
    assert LAUNCHED[FORWARD] == 3, "13 rows, at most 5 a call"


def test_a_head_takes_it_where_it_was_told_and_its_input_is_on_the_card(device: Device) -> None:
    head = nn.Linear(2, 3)
    on_card, on_host = torch.zeros(1, 2, device=device.torch_device), torch.zeros(1, 2)
    assert not takes_cross_entropy(head, on_card)
    take_cross_entropy(head)
    assert takes_cross_entropy(head, on_card)
    assert not takes_cross_entropy(head, on_host)


def test_a_card_without_bfloat16_takes_no_fused_operator_by_itself(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu: Any = torch.npu  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(npu, "is_bf16_supported", lambda: False)
    model: Any = build_model("qwen2")
    model.to(device.torch_device)
    assert fuse_operators(model, device, ["auto"]) == []
    assert fuse_operators(model, device, ["cross_entropy"]) == ["cross_entropy"], "who asks by name gets it"
