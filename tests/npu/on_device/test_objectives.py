"""Every objective on the NPU: the CPU's loss, gradient and metrics, from operators that the wheel has kernels for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from builders import build_groups, build_model, gradients, relative_difference
from burnish.batching.layout import lay_out
from burnish.device.pick import pick_device
from burnish.engine.method import Scored, StepPart
from burnish.methods.dpo import DPOConfig
from burnish.methods.preference import PreferenceMethod
from burnish.objectives.facts import DIVERGENCE_NAMES, FACTS
from npu.recorder import OperatorRecorder, denied
from npu.simulator.registered import without_kernel

NEEDED: dict[str, dict[str, Any]] = {
    "exo_pair": {"label_smoothing": 0.1},
    "simpo": {"beta": 2.0},
    "alphapo": {"beta": 2.0},
}
LISTS = [name for name, facts in FACTS.items() if facts.over_lists] + ["all_pairs"]
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"loss_type": [name], **NEEDED.get(name, {})} for name in FACTS},
    **{name: {"f_divergence_type": name} for name in DIVERGENCE_NAMES},
    "weighted": {"use_weighting": True},
    "discounted": {"ld_alpha": 0.5},
    "following": {"beta_dpo_alpha": 0.6},
    "with the prompt": {"loss_type": ["orpo"], "orpo_nll_on_prompt": True},
    "several": {"loss_type": ["sigmoid", "aot", "sft"], "label_smoothing": 0.1, "shadow_losses": ["ipo", "bco_pair"]},
}


def _share(settings: dict[str, Any], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Loss, gradient of every weight, and metrics of one step, on the CPU."""
    method = PreferenceMethod(DPOConfig(**settings))
    names = settings.get("loss_type", ["sigmoid"])
    groups = build_groups(0, k=3 if names[0] in LISTS else 2)
    if FACTS[names[0]].uses_margin and names[0] not in LISTS:
        groups = build_groups(0, margin=0.3)
    batch = lay_out(groups, shared=True, pad_id=0).to(device)
    policy, reference = (build_model("llama", seed=seed).to(device) for seed in (0, 1))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        said = method.build_scorer(reference, token_metrics=False)(batch) if method.needs_reference else None
    scored = Scored(batch, method.build_scorer(policy, token_metrics=True)(batch), said)
    counts, step = method.denominators(groups), None
    if method.couples:
        value = method.couple(method.coupling_row(scored).detach(), counts)
        step = StepPart(value, torch.arange(len(groups), device=device))
    share = method.loss(scored, counts, step)
    method.advance(None if step is None else step.value, share.statistics)
    share.loss.backward()
    metrics = {name: float(total) / max(1.0, float(count)) for name, (total, count) in share.metrics.items()}
    return share.loss.detach().cpu(), gradients(policy).cpu(), metrics


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_loss_gradient_and_metrics_are_the_cpus(settings: dict[str, Any]) -> None:
    expected = _share(settings, torch.device("cpu"))
    with OperatorRecorder("npu") as record:
        loss, gradient, metrics = _share(settings, pick_device("npu").torch_device)
    torch.testing.assert_close(loss, expected[0], rtol=1e-5, atol=1e-6)
    assert relative_difference(gradient, expected[1]) < 1e-4
    assert metrics == pytest.approx(expected[2], rel=1e-4, abs=1e-4)
    assert without_kernel(set(record.dtypes)) == []
    assert denied(record) == {}
