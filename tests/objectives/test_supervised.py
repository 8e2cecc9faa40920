"""Supervised losses of single tokens."""

from __future__ import annotations

import math

import pytest
import torch

from burnish.objectives.supervised import SUPERVISED, smoothed_loss, z_loss


def token_logps(seed: int = 0) -> torch.Tensor:
    return -5 * torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_losses_equal_a_loop():
    logps = token_logps()
    assert SUPERVISED["nll"](logps).tolist() == pytest.approx([-it for it in logps.tolist()])
    assert SUPERVISED["dft"](logps).tolist() == pytest.approx([-math.exp(it) * it for it in logps.tolist()])


def test_nll_equals_finite_differences():
    assert torch.autograd.gradcheck(SUPERVISED["nll"], token_logps().requires_grad_())


def test_dft_weighs_the_gradient_by_the_probability_and_does_not_differentiate_it():
    logps = token_logps().requires_grad_()
    (gradient,) = torch.autograd.grad(SUPERVISED["dft"](logps).sum(), logps)
    torch.testing.assert_close(gradient, -logps.detach().exp())


def test_label_smoothing_equals_torchs_cross_entropy():
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.arange(6)
    logps = logits.log_softmax(-1)
    got = smoothed_loss(SUPERVISED["nll"](logps[torch.arange(6), targets]), logps.mean(-1), label_smoothing=0.2)
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(got, expected)


def test_z_loss_is_the_square_of_the_log_normalizer():
    normalizers = token_logps(2).requires_grad_()
    assert z_loss(normalizers).tolist() == pytest.approx([it * it for it in normalizers.tolist()])
    assert torch.autograd.gradcheck(z_loss, normalizers)


@pytest.mark.parametrize("name", SUPERVISED)
def test_impossible_tokens_leave_values_and_gradients_finite(name):
    logps = torch.tensor([0.0, -1e4]).requires_grad_()
    losses = SUPERVISED[name](logps)
    (gradient,) = torch.autograd.grad(losses.sum(), logps)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(gradient).all()
