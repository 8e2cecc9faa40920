"""The last layer goes on with counted positions alone: values and gradients are those of the whole layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from builders import CONFIGS, build_groups, build_model, gradients, relative_difference
from burnish.batching.layout import MicroBatch, lay_out
from burnish.methods.opening import enable_checkpointing
from burnish.models.adapters import add_adapter
from burnish.models.settings import AdapterSettings
from burnish.scoring.scorer import Scorer

TRIMMED = ("qwen2", "qwen3", "llama", "mistral-window", "granite")
LAYOUTS: dict[str, dict[str, Any]] = {
    "separate": {"shared": False},
    "tree": {"shared": True},
    "packed": {"shared": True, "packed": True},
}


def _compare(scorer: Scorer, batch: MicroBatch) -> tuple[float, float]:
    """How far scores and gradients are from those of the whole layer: nats, and relative."""
    assert scorer.trims_last_layer
    results = []
    for trims in (False, True):
        scorer.trims_last_layer = trims
        scores = scorer(batch)
        (scores.logps * torch.linspace(-1, 1, len(scores.logps))).sum().backward()
        results.append((scores.token_logps.detach(), gradients(scorer)))
    (plain, plain_gradient), (trimmed, trimmed_gradient) = results
    return (trimmed - plain).abs().max().item(), relative_difference(trimmed_gradient, plain_gradient)


@pytest.mark.parametrize(
    ("name", "layout"),
    [(name, layout) for name in TRIMMED for layout in LAYOUTS if (name, layout) != ("mistral-window", "packed")],
)
def test_scores_and_gradients_are_those_of_the_whole_layer(name: str, layout: str) -> None:
    if layout == "packed" and name == "mistral-window":
        pytest.skip("rows with a window are not packed")
    difference, of_gradient = _compare(
        Scorer(build_model(name)), lay_out(build_groups(11), pad_id=0, **LAYOUTS[layout])
    )
    assert difference < 1e-4
    assert of_gradient < 1e-5


def test_adapters_get_the_gradients_of_the_whole_layer() -> None:
    policy = add_adapter(build_model("llama"), AdapterSettings(use_peft=True, lora_r=4, lora_dropout=0.0))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    difference, of_gradient = _compare(Scorer(policy), lay_out(build_groups(12), shared=True, pad_id=0))
    assert difference < 1e-4
    assert of_gradient < 1e-5


def test_recomputed_activations_give_the_same_gradients() -> None:
    model = build_model("qwen2")
    enable_checkpointing(model)
    difference, of_gradient = _compare(Scorer(model), lay_out(build_groups(13), shared=True, packed=True, pad_id=0))
    assert difference < 1e-4
    assert of_gradient < 1e-5


def test_positions_without_logits_meet_no_mlp_in_the_last_layer() -> None:
    model = build_model("llama")
    batch = lay_out(build_groups(14), shared=True, packed=True, pad_id=0)
    rows: list[int] = []
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[:-1].numel()))
    Scorer(model)(batch)
    assert rows == [batch.input_ids.numel()] * 2 + [len(batch.predictors)]
    assert len(batch.predictors) < batch.input_ids.numel()


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - set(TRIMMED)))
def test_layers_that_are_not_known_stay_as_they_are(name: str) -> None:
    model = build_model(name)
    assert not Scorer(model).trims_last_layer
    assert all("forward" not in vars(module) for module in model.modules())


def test_the_model_itself_computes_as_before() -> None:
    model, batch = build_model("llama"), lay_out(build_groups(15), shared=False, pad_id=0)
    before = model(input_ids=batch.input_ids).logits
    Scorer(model)(batch)
    assert torch.equal(model(input_ids=batch.input_ids).logits, before)
