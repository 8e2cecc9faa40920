"""Faster layers compute what the layers themselves compute, in value and in every gradient."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch

from builders import CONFIGS, build_groups, build_model, gradients, relative_difference
from burnish.batching.layout import lay_out
from burnish.device.memory import keep_freed_memory
from burnish.models.cpu_layers import _RmsNorm, _SwiGlu, speed_up_layers
from burnish.scoring.compute_copies import compute_copy, forget_compute_copies
from burnish.scoring.scorer import Scorer


def _scores_and_gradient(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    scores = Scorer(model)(lay_out(build_groups(7), shared=True, pad_id=0))
    (scores.logps * torch.linspace(-1, 1, len(scores.logps))).sum().backward()
    return scores.token_logps.detach(), gradients(model)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_scores_and_gradients_stay_as_they_are(name: str) -> None:
    model = build_model(name)
    plain, plain_gradient = _scores_and_gradient(model)
    names = list(model.state_dict())
    changed = speed_up_layers(model)
    fused, fused_gradient = _scores_and_gradient(model)
    assert (changed >= 20) == (name != "gpt2")  # its layers are Conv1D
    assert (fused - plain).abs().max() < 1e-4
    assert relative_difference(fused_gradient, plain_gradient) < 1e-5
    assert list(model.state_dict()) == names
    assert speed_up_layers(model) == 0


def test_norm_and_swiglu_have_the_derivatives_of_finite_differences() -> None:
    torch.manual_seed(0)
    draw = lambda *size: torch.randn(*size, dtype=torch.float64, requires_grad=True)  # noqa: E731
    assert torch.autograd.gradcheck(lambda x, w: _RmsNorm.apply(x, w, 1e-5, torch.float64), (draw(2, 3, 5), draw(5)))


def test_swiglu_passes_on_the_gradient_of_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.models.cpu_layers.linear_kernel", lambda: None)  # oneDNN has no float64
    torch.manual_seed(0)
    draw = lambda *size: torch.randn(*size, dtype=torch.float64, requires_grad=True)  # noqa: E731
    assert torch.autograd.gradcheck(
        lambda x, *weights: _SwiGlu.apply(x, *weights, [weight.detach() for weight in weights]),
        (draw(1, 3, 4), draw(6, 4), draw(6, 4), draw(4, 6)),
    )


def test_frozen_weights_get_no_gradient_and_pass_it_on() -> None:
    model = build_model("llama")
    model.requires_grad_(False)
    norm, first = (model.get_parameter(f"model.{name}.weight") for name in ("norm", "layers.0.input_layernorm"))
    for weight in (norm, first):
        weight.requires_grad_()
    plain = _scores_and_gradient(model)[1]
    speed_up_layers(model)
    assert relative_difference(_scores_and_gradient(model)[1], plain) < 1e-5
    assert len(plain) == norm.numel() + first.numel()


def test_a_copy_computes_with_its_own_weights() -> None:
    model = build_model("qwen2")
    speed_up_layers(model)
    before = _scores_and_gradient(model)[0]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(_scores_and_gradient(other)[0], before)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_under_autocast_layers_round_as_autocast_does(name: str) -> None:
    exact, exact_gradient = _scores_and_gradient(build_model(name))
    model = build_model(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, plain_gradient = _scores_and_gradient(model)
        speed_up_layers(model)
        fused, fused_gradient = _scores_and_gradient(model)
    assert not torch.equal(fused, exact)
    assert (fused - exact).norm() < 1.3 * (plain - exact).norm()
    error, expected = (relative_difference(gradient, exact_gradient) for gradient in (fused_gradient, plain_gradient))
    assert fused_gradient.dtype == torch.float32
    assert error < 1.3 * expected < 0.1


def test_weights_are_cast_once_until_a_step_moves_them() -> None:
    model = build_model("llama")
    speed_up_layers(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _scores_and_gradient(model)
        copy = compute_copy(weight, torch.bfloat16)
        _scores_and_gradient(model)
        assert compute_copy(weight, torch.bfloat16) is copy
        Scorer(model)(lay_out(build_groups(7), shared=True, pad_id=0)).logps.sum().backward()
    optimizer.step()  # the fused kernel does not tell that it has written
    forget_compute_copies(trainable_only=True)
    moved = compute_copy(weight, torch.bfloat16)
    assert moved is not copy
    assert torch.equal(moved, weight.to(torch.bfloat16))


def test_forgetting_leaves_the_copies_of_frozen_weights() -> None:
    trained, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False)
    before = [compute_copy(weight, torch.bfloat16) for weight in (trained, frozen)]
    trained.data.fill_(2.0)
    forget_compute_copies(trainable_only=True)
    assert compute_copy(trained, torch.bfloat16).tolist() == [2.0, 2.0]
    assert compute_copy(frozen, torch.bfloat16) is before[1]


def test_glibc_keeps_freed_memory() -> None:
    assert keep_freed_memory() or sys.platform != "linux"
