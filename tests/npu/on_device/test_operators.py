"""The vendor's operators against plain torch on the CPU, in value and gradient, through the wheel's own interfaces."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

torch_npu: Any = importlib.import_module("torch_npu")
NPU = torch.device("npu")
CAUSAL = torch.triu(torch.ones(2048, 2048, dtype=torch.bool), 1)


def _random(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _assert_as_on_cpu(on_npu: Callable[..., Tensor], on_cpu: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """Equal outputs, and equal gradients of every input for one random direction."""
    results = []
    for function, device in ((on_npu, NPU), (on_cpu, torch.device("cpu"))):
        leaves = [value.to(device).requires_grad_() for value in inputs]
        output = function(*leaves)
        direction = torch.linspace(-1, 1, output.numel()).reshape(output.shape).to(device)
        found = torch.autograd.grad(output, leaves, direction)
        results.append([value.detach().cpu() for value in (output, *found)])
    for value, expected in zip(*results, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=2e-6)


def _tree_mask() -> Tensor:
    """(2, 1, 7, 7): a prompt of 3 and completions of 2 each; the second row is one token shorter."""
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2, -1]])
    query, key = segments[:, :, None], segments[:, None, :]
    mask = ((key == 0) | (key == query)) & torch.ones(7, 7).tril().bool() & (query != -1)
    return (mask | torch.eye(7, dtype=torch.bool))[:, None]


@pytest.mark.parametrize("kind", ["boolean mask", "additive mask", "causal", "grouped heads"])
def test_scaled_dot_product_attention(kind: str) -> None:
    heads = 2 if kind == "grouped heads" else 4
    inputs = _random((2, 4, 7, 8), (2, heads, 7, 8), (2, heads, 7, 8))
    mask = None if kind == "causal" else _tree_mask()
    if mask is not None and kind == "additive mask":
        mask = torch.zeros(mask.shape).masked_fill(~mask, float("-inf")) + 0.3

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        options: dict[str, Any] = {"is_causal": mask is None, "enable_gqa": heads == 2}
        on_device = None if mask is None else mask.to(query.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=on_device, **options)

    _assert_as_on_cpu(attend, attend, inputs)


@pytest.mark.parametrize("layout", ["BNSD", "BSND"])
def test_fused_attention_with_a_tree_mask(layout: str) -> None:
    inputs = _random((2, 4, 7, 8), (2, 2, 7, 8), (2, 2, 7, 8))
    mask = _tree_mask()

    def fused(*parts: Tensor) -> Tensor:
        if layout == "BSND":
            parts = tuple(part.transpose(1, 2) for part in parts)
        hidden = ~mask.to(NPU)
        output = torch_npu.npu_fusion_attention(*parts, 4, layout, atten_mask=hidden, scale=8**-0.5)[0]
        return output.transpose(1, 2) if layout == "BSND" else output

    _assert_as_on_cpu(
        fused, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True), inputs
    )


def test_fused_attention_over_packed_sequences() -> None:
    inputs = _random((9, 4, 8), (13, 2, 8), (13, 2, 8))
    queries, keys = [4, 9], [4, 13]  # the second sequence asks of its last five of nine tokens

    def fused(*parts: Tensor) -> Tensor:
        return torch_npu.npu_fusion_attention(
            *parts,
            *(4, "TND"),
            atten_mask=CAUSAL.to(NPU),
            scale=8**-0.5,
            actual_seq_qlen=queries,
            actual_seq_kvlen=keys,
            sparse_mode=3,
        )[0]

    def separately(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        outputs = []
        for asking, seen in ((slice(0, 4), slice(0, 4)), (slice(4, 9), slice(4, 13))):
            q, k, v = (part.transpose(0, 1)[None] for part in (query[asking], key[seen], value[seen]))
            mask = torch.ones(q.shape[2], k.shape[2]).tril(k.shape[2] - q.shape[2]).bool()
            outputs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1))
        return torch.cat(outputs)

    _assert_as_on_cpu(fused, separately, inputs)


def test_rms_norm() -> None:
    _assert_as_on_cpu(
        lambda x, w: torch_npu.npu_rms_norm(x, w, 1e-5)[0],
        lambda x, w: F.rms_norm(x, (16,), w, 1e-5),
        _random((3, 5, 16), (16,)),
    )


def test_rotary_multiplication() -> None:
    angles = torch.linspace(0, 3, 40).reshape(1, 1, 5, 8)
    cosine, sine = angles.cos(), angles.sin()

    def on_cpu(values: Tensor) -> Tensor:
        first, second = values.chunk(2, -1)
        return values * cosine + torch.cat((-second, first), -1) * sine

    _assert_as_on_cpu(
        lambda x: torch_npu.npu_rotary_mul(x, cosine.to(NPU), sine.to(NPU)), on_cpu, _random((2, 3, 5, 8))
    )


def test_swiglu() -> None:
    def on_cpu(values: Tensor) -> Tensor:
        gate, up = values.chunk(2, -1)
        return F.silu(gate) * up

    _assert_as_on_cpu(lambda x: torch_npu.npu_swiglu(x, dim=-1), on_cpu, _random((3, 4, 10)))


def test_cross_entropy_of_each_token() -> None:
    targets = torch.tensor([1, 4, 0, 6])
    _assert_as_on_cpu(
        lambda x: torch_npu.npu_cross_entropy_loss(x, targets.to(NPU), reduction="none")[0],
        lambda x: F.cross_entropy(x, targets, reduction="none"),
        _random((4, 7)),
    )


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))])
def test_products_of_matrices(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    _assert_as_on_cpu(torch.matmul, torch.matmul, _random(*shapes))


def test_the_devices_generator_is_its_own() -> None:
    torch.manual_seed(1)
    first, on_host = torch.randn(64, device=NPU).cpu(), torch.randn(64)
    state = torch_npu.npu.get_rng_state()
    second = torch.randn(64, device=NPU).cpu()
    torch_npu.npu.set_rng_state(state)
    assert torch.equal(torch.randn(64, device=NPU).cpu(), second)
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(torch.randn(64), on_host)
    assert torch.equal(torch.randn(64, device=NPU).cpu(), first)
