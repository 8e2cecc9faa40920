"""The balancing loss of experts: transformers' function on a whole step, as sums that add up over its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from burnish.objectives.routing import balancing_loss
from burnish.scoring.routing import sum_routing

EXPERTS, TOP, LAYERS = 5, 2, 3


def _logits(seed: int, rows: int = 12) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, EXPERTS, generator=generator, dtype=torch.float64) for _ in range(LAYERS)]


def _tuple(logits: list[Any]) -> Any:
    return tuple(logits)


def _oracle(logits: list[torch.Tensor], copies: np.ndarray) -> float:
    """E Σ f P with plain loops."""
    counts, shares, rows = np.zeros(EXPERTS), np.zeros(EXPERTS), 0.0
    for layer in logits:
        for values, copy in zip(layer.numpy(), copies, strict=True):
            probabilities = np.exp(values) / np.exp(values).sum()
            for expert in np.argsort(-probabilities)[:TOP]:
                counts[expert] += copy
            shares += copy * probabilities
            rows += copy
    return float(EXPERTS * (counts / rows * shares / rows).sum())


def _loss(logits: list[torch.Tensor], copies: torch.Tensor) -> torch.Tensor:
    routing = sum_routing(logits, copies, experts_per_token=TOP)
    return balancing_loss(routing.probabilities, routing.assignments, routing.num_rows)


def test_it_is_the_papers_formula_and_that_of_transformers() -> None:
    logits = _logits(0)
    copies = torch.tensor([1.0] * 8 + [0.0] * 4)
    value = float(_loss(logits, copies))
    assert value == pytest.approx(_oracle(logits, copies.numpy()), rel=1e-6)
    assert value == pytest.approx(float(load_balancing_loss_func(_tuple(logits), EXPERTS, TOP, copies)), rel=1e-6)


def test_a_shared_prompt_counts_once_a_completion() -> None:
    logits = _logits(1)
    copies = torch.tensor([2.0] * 5 + [1.0] * 7)
    repeated = [torch.cat([layer, layer[:5]]) for layer in logits]
    assert float(_loss(logits, copies)) == pytest.approx(float(_loss(repeated, torch.ones(17))), rel=1e-6)
    assert float(_loss(logits, copies)) == pytest.approx(_oracle(logits, copies.numpy()), rel=1e-6)


def test_shares_of_parts_and_their_gradients_add_up_to_the_steps() -> None:
    logits = [layer.float().requires_grad_() for layer in _logits(2)]
    whole = sum_routing(logits, torch.ones(12), experts_per_token=TOP)
    loss = balancing_loss(whole.probabilities, whole.assignments, whole.num_rows)
    expected = torch.autograd.grad(loss, logits, retain_graph=True)
    parts = [
        sum_routing([layer[part] for layer in logits], torch.ones(size), experts_per_token=TOP)
        for part, size in ((slice(4), 4), (slice(4, 12), 8))
    ]
    each = [balancing_loss(part.probabilities, whole.assignments, whole.num_rows) for part in parts]
    shares = torch.stack(each).sum()
    assert shares.item() == pytest.approx(loss.item(), rel=1e-6)
    for one, two in zip(torch.autograd.grad(shares, logits), expected, strict=True):
        torch.testing.assert_close(one, two)


def test_it_is_differentiated_as_finite_differences_say() -> None:
    probabilities = torch.rand(EXPERTS, dtype=torch.float64, requires_grad=True)
    assignments = torch.rand(EXPERTS, dtype=torch.float64)
    rows = torch.tensor(7.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: balancing_loss(values, assignments, rows), [probabilities])
