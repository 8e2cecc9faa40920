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
    assert torch.autograd.gradcheck(lambda x, w: _RmsNorm.apply(x, w, 1e-5), (draw(2, 3, 5), draw(5)))


def test_swiglu_passes_on_the_gradient_of_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.models.cpu_layers._linear_kernel", lambda: None)  # oneDNN has no float64
    torch.manual_seed(0)
    draw = lambda *size: torch.randn(*size, dtype=torch.float64, requires_grad=True)  # noqa: E731
    assert torch.autograd.gradcheck(_SwiGlu.apply, (draw(1, 3, 4), draw(6, 4), draw(6, 4), draw(4, 6)))


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


def test_under_autocast_layers_go_their_own_way() -> None:
    model = build_model("llama")
    batch = lay_out(build_groups(7), shared=True, pad_id=0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = Scorer(model)(batch).token_logps
        speed_up_layers(model)
        assert torch.equal(Scorer(model)(batch).token_logps, plain)


def test_glibc_keeps_freed_memory() -> None:
    assert keep_freed_memory() or sys.platform != "linux"
