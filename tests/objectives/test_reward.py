"""Bradley-Terry rewards of pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from burnish.objectives.reward import bradley_terry_loss, reward_extremes, reward_metrics
from objectives.oracles import log_sigma


def rewards(seed: int, pairs: int = 7) -> tuple[Tensor, Tensor]:
    values = 3 * torch.randn(2, pairs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values[0], values[1]


def test_losses_equal_a_loop():
    chosen, rejected = rewards(1)
    margin = torch.linspace(-1, 1, 7, dtype=torch.float64)
    got = bradley_terry_loss(chosen, rejected, margin=margin, center_rewards_coefficient=0.07)
    rows = zip(chosen.tolist(), rejected.tolist(), margin.tolist(), strict=True)
    assert got.tolist() == pytest.approx([-log_sigma(c - r - m) + 0.07 * (c + r) ** 2 for c, r, m in rows])


def test_smoothed_losses_equal_a_loop():
    chosen, rejected = rewards(4)
    margin, smoothing = torch.linspace(-1, 1, 7, dtype=torch.float64), torch.linspace(0, 0.45, 7, dtype=torch.float64)
    got = bradley_terry_loss(chosen, rejected, margin=margin, label_smoothing=smoothing)
    rows = zip((chosen - rejected - margin).tolist(), smoothing.tolist(), strict=True)
    assert got.tolist() == pytest.approx([-(1 - e) * log_sigma(d) - e * log_sigma(-d) for d, e in rows])


def test_without_margin_and_centering_only_the_difference_matters():
    chosen, rejected = rewards(2)
    torch.testing.assert_close(
        bradley_terry_loss(chosen + 5, rejected + 5), bradley_terry_loss(chosen, rejected), rtol=1e-9, atol=1e-9
    )


def test_gradients_equal_finite_differences():
    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return bradley_terry_loss(
            chosen,
            rejected,
            margin=torch.full_like(chosen, 0.3),
            label_smoothing=torch.full_like(chosen, 0.2),
            center_rewards_coefficient=0.07,
        )

    chosen, rejected = rewards(3)
    assert torch.autograd.gradcheck(loss, (chosen.requires_grad_(), rejected.requires_grad_()))


def test_values_and_gradients_are_finite_at_rewards_of_ten_thousand():
    chosen = torch.tensor([1e4, -1e4]).requires_grad_()
    losses = bradley_terry_loss(chosen, -chosen.detach(), center_rewards_coefficient=0.1)
    (gradient,) = torch.autograd.grad(losses.sum(), chosen)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()


def test_metrics_are_sums_over_pairs_and_ties_are_misses():
    chosen, rejected = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, 2.0, 0.0])
    metrics = {key: (total / count).item() for key, (total, count) in reward_metrics(chosen, rejected).items()}
    assert metrics == pytest.approx({"accuracy": 1 / 3, "margin": -0.5 / 3, "mean_reward": 4.5 / 6})
    assert [it.item() for it in reward_extremes(chosen, rejected)] == [-1.0, 2.0]
