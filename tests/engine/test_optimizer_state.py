"""Optimizer and random states go through safetensors and come back bit for bit, or not at all."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from burnish.engine.checkpoint import load_optimizer_tensors, optimizer_tensors, pack_rng, restore_rng
from burnish.engine.tensor_files import copy_tensors, read_tensors, write_tensors
from burnish.errors import IntegrityError


def build(seed: int, **options) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    groups = [{"params": [p for p in model.parameters() if (p.ndim > 1) == wide]} for wide in (True, False)]
    return model, torch.optim.AdamW(groups, lr=0.01, **options)


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(6, 5, generator=generator)).square().mean().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def half_every_step(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"amsgrad": True}, {"foreach": True}])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(options, tmp_path):
    golden, optimizer = build(0, **options)
    schedule = half_every_step(optimizer)
    train(golden, optimizer, schedule, range(3))
    write_tensors(tmp_path / "model", dict(golden.named_parameters()))
    write_tensors(tmp_path / "optimizer", optimizer_tensors(optimizer, dict(golden.named_parameters())))
    kept = schedule.state_dict()
    train(golden, optimizer, schedule, range(3, 6))

    model, optimizer = build(1, **options)
    schedule = half_every_step(optimizer)
    named = dict(model.named_parameters())
    copy_tensors(read_tensors(tmp_path / "model"), named, what="model")
    load_optimizer_tensors(optimizer, named, read_tensors(tmp_path / "optimizer"))
    schedule.load_state_dict(kept)
    assert optimizer.param_groups[0]["lr"] == 0.01 * 0.125
    train(model, optimizer, schedule, range(3, 6))
    for name, parameter in golden.named_parameters():
        assert torch.equal(named[name], parameter), name


def test_an_optimizer_that_has_not_stepped_has_no_state_to_lose():
    model, optimizer = build(0)
    named = dict(model.named_parameters())
    saved = optimizer_tensors(optimizer, named)
    load_optimizer_tensors(optimizer, named, saved)
    assert optimizer.state_dict()["state"] == {}


def stepped() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW, dict[str, torch.Tensor]]:
    model, optimizer = build(0)
    train(model, optimizer, half_every_step(optimizer), range(1))
    named = dict(model.named_parameters())
    return named, optimizer, optimizer_tensors(optimizer, named)


CHANGES = {
    "lacks 0.weight.exp_avg": lambda saved: saved.pop("0.weight.exp_avg"),
    "lacks group.1.lr": lambda saved: saved.pop("group.1.lr"),
    "lacks 1.bias.step": lambda saved: saved.pop("1.bias.step"),
    "2.weight.exp_avg": lambda saved: saved.update({"2.weight.exp_avg": torch.zeros(2)}),
    "0.bias.exp_avg_sq is": lambda saved: saved.update({"0.bias.exp_avg_sq": torch.zeros(5)}),
    "1.weight.exp_avg is": lambda saved: saved.update({"1.weight.exp_avg": saved["1.weight.exp_avg"].double()}),
    "0.bias.step instead of one": lambda saved: saved.update({"0.bias.step": torch.zeros(2)}),
}


@pytest.mark.parametrize("message", CHANGES)
def test_an_optimizer_state_that_does_not_fit_is_refused_by_name(message):
    named, optimizer, saved = stepped()
    changed = dict(saved)
    CHANGES[message](changed)
    with pytest.raises(IntegrityError, match=message):
        load_optimizer_tensors(optimizer, named, changed)
    assert all(torch.equal(value, saved[key]) for key, value in optimizer_tensors(optimizer, named).items())


def test_training_after_loading_leaves_the_saved_tensors_as_they_are():
    named, optimizer, saved = stepped()
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    load_optimizer_tensors(optimizer, named, kept)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, tensor in stepped()[2].items():
        assert torch.equal(kept[name], tensor), name


def test_model_tensors_that_do_not_fit_are_refused_and_nothing_is_copied():
    live = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    saved = {"a": torch.ones(2), "b": torch.ones(4), "d": torch.ones(1)}
    with pytest.raises(IntegrityError) as caught:
        copy_tensors(saved, live, what="model")
    for part in ("1 missing (c)", "1 unexpected (d)", "b: float32 [4] in the checkpoint, float32 [3] in the run"):
        assert part in str(caught.value)
    assert all(not tensor.any() for tensor in live.values())


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), float(torch.randn(1))]


@pytest.mark.parametrize("draws", [0, 1, 2])
def test_random_numbers_go_on_where_they_stopped(draws, tmp_path):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    for _ in range(draws):
        draw()
    write_tensors(tmp_path / "rng", pack_rng())
    expected = [draw(), draw()]
    restore_rng(read_tensors(tmp_path / "rng"))
    assert [draw(), draw()] == expected


def test_random_states_that_do_not_fit_are_refused():
    state = pack_rng()
    with pytest.raises(IntegrityError, match="torch"):
        restore_rng({name: tensor for name, tensor in state.items() if name != "torch"})
    with pytest.raises(IntegrityError, match="malformed"):
        restore_rng(state | {"torch": torch.zeros(3, dtype=torch.uint8)})
