"""The blockwise head equals the plain computation, in value and gradient, whatever the block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.scoring.head import HeadShape, score_tokens

SHAPES = [HeadShape(), HeadShape(scale=0.3), HeadShape(softcap=2.0), HeadShape(scale=1.7, softcap=3.0)]
BLOCKS = [1, 4 * 11 * 3, 2**20]


def _plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shape: HeadShape) -> Tensor:
    """The same by the definition, all logits at once."""
    logits = torch.nn.functional.linear(hidden, weight, bias) * shape.scale
    if shape.softcap is not None:
        logits = shape.softcap * torch.tanh(logits / shape.softcap)
    return torch.log_softmax(logits, dim=1).gather(1, targets[:, None]).squeeze(1)


def _inputs(dtype: torch.dtype, *, bias: bool, rows: int = 7) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=dtype).requires_grad_()  # noqa: E731
    return (
        draw(rows, 5),
        draw(11, 5),
        draw(11) if bias else None,
        torch.randint(0, 11, (rows,), generator=generator),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("kept_bytes", [0, 8 * 11 * 4, 2**20], ids=["recomputed", "partly kept", "kept"])
def test_gradients_are_those_of_finite_differences(
    shape: HeadShape, bias: bool, block_bytes: int, kept_bytes: int
) -> None:
    hidden, weight, offset, targets = _inputs(torch.float64, bias=bias)

    def logps(*tensors: Tensor) -> Tensor:
        return score_tokens(
            tensors[0],
            tensors[1],
            tensors[2] if bias else None,
            targets,
            shape=shape,
            block_bytes=block_bytes,
            kept_bytes=kept_bytes,
        ).logps

    leaves = (hidden, weight, offset) if offset is not None else (hidden, weight)
    assert torch.autograd.gradcheck(logps, leaves)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_equal_the_plain_computation_in_float32(shape: HeadShape) -> None:
    hidden, weight, bias, targets = _inputs(torch.float32, bias=True, rows=50)
    upstream = torch.linspace(-1, 1, 50)
    results = []
    for compute in (
        lambda: score_tokens(hidden, weight, bias, targets, shape=shape, block_bytes=300).logps,
        lambda: _plain(hidden, weight, bias, targets, shape),
    ):
        logps = compute()
        leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
        results.append((logps, *torch.autograd.grad((logps * upstream).sum(), leaves)))
    for ours, plain in zip(*results, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kept_bytes", [0, 2**20], ids=["recomputed", "kept"])
def test_a_frozen_head_passes_the_same_gradient_on(shape: HeadShape, kept_bytes: int) -> None:
    hidden, weight, bias, targets = _inputs(torch.float64, bias=True)
    assert bias is not None
    frozen, offset = weight.detach(), bias.detach()
    compute = lambda states: score_tokens(states, frozen, offset, targets, shape=shape, kept_bytes=kept_bytes).logps  # noqa: E731
    assert torch.autograd.gradcheck(compute, (hidden,))


def test_a_second_backward_pass_gives_the_same_gradient() -> None:
    hidden, weight, _, targets = _inputs(torch.float64, bias=False)
    logps = score_tokens(hidden, weight, None, targets, shape=HeadShape()).logps
    once = torch.autograd.grad(logps.sum(), (hidden, weight), retain_graph=True)
    again = torch.autograd.grad(logps.sum(), (hidden, weight))
    for one, two in zip(once, again, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


def test_nothing_is_kept_where_nothing_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Tensor:
        raise AssertionError("probabilities were computed")

    monkeypatch.setattr("burnish.scoring.head._probabilities_in_place", fail)
    hidden, weight, _, targets = _inputs(torch.float32, bias=False)
    with torch.no_grad():
        score_tokens(hidden, weight, None, targets, shape=HeadShape())
    with pytest.raises(AssertionError):
        score_tokens(hidden, weight, None, targets, shape=HeadShape())


def test_frozen_weights_get_no_gradient() -> None:
    hidden, weight, _, targets = _inputs(torch.float32, bias=False)
    frozen = weight.detach()
    score_tokens(hidden, frozen, None, targets, shape=HeadShape()).logps.sum().backward()
    assert hidden.grad is not None
    assert frozen.grad is None


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e4), st.integers(0, 2**31 - 1))
def test_adding_a_constant_to_all_logits_changes_nothing(constant: float, seed: int) -> None:
    torch.manual_seed(seed)
    hidden, weight, targets = torch.randn(4, 5).double(), torch.randn(11, 5).double(), torch.randint(0, 11, (4,))
    bias = torch.full((11,), constant, dtype=torch.float64)
    plain = score_tokens(hidden, weight, None, targets, shape=HeadShape()).logps
    shifted = score_tokens(hidden, weight, bias, targets, shape=HeadShape()).logps
    assert torch.allclose(plain, shifted, atol=1e-9)


def test_huge_logits_stay_finite() -> None:
    hidden = torch.full((2, 5), 1e4, requires_grad=True)
    weight = torch.linspace(-1, 1, 55).view(11, 5).requires_grad_()
    logps = score_tokens(hidden, weight, None, torch.tensor([0, 10]), shape=HeadShape()).logps
    logps.sum().backward()
    assert logps.isfinite().all()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_bfloat16_rows_are_summed_in_float32() -> None:
    hidden, weight, _, targets = _inputs(torch.float32, bias=False, rows=30)
    exact = _plain(hidden, weight, None, targets, HeadShape())
    scores = score_tokens(hidden.bfloat16(), weight, None, targets, shape=HeadShape())
    assert scores.logps.dtype == torch.float32
    assert (scores.logps - exact).abs().max() < 0.1
    scores.logps.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
