"""Every objective of `burnish dpo` in the engine: the cut of a step is invisible, and state goes on as it should."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from builders import build_groups, build_model, float32_accelerator, gradients, relative_difference
from burnish import DPOConfig
from burnish.data.groups import PromptGroup
from burnish.engine.cut import Cut
from burnish.engine.metrics import MetricSums
from burnish.engine.passes import Passes
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOSettings
from burnish.methods.preference import PreferenceMethod
from burnish.models.cached_reference import CachedReference
from burnish.models.logp_store import LogpStore
from burnish.models.reference import FrozenReference
from burnish.objectives.table import PAIRED
from burnish.scoring.scorer import Scorer

SAME_UPDATE = 1e-4
CUTS = {1: 100_000, 2: 110, 8: 1}
"""Micro-batches of the step, and the token budget that makes so many."""
SETTINGS: dict[str, dict[str, Any]] = {
    name: {"loss_type": [name], **({"label_smoothing": 0.1} if "label_smoothing" in objective.settings else {})}
    for name, objective in PAIRED.items()
}
SETTINGS |= {
    "mpo": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    "aot and sft": {"loss_type": ["aot", "sft"], "loss_weights": [1.0, 0.5], "beta": 0.3},
    "forward_kl": {"loss_type": ["sigmoid"], "f_divergence_type": "forward_kl"},
    "ld_alpha": {"loss_type": ["sigmoid", "sft"], "ld_alpha": 0.4},
    "ld_alpha with aot": {"loss_type": ["aot"], "ld_alpha": 0.4},
    "use_weighting": {"loss_type": ["sigmoid"], "use_weighting": True},
    "beta_dpo": {"loss_type": ["sigmoid"], "beta_dpo_alpha": 0.6},
    "beta_dpo with aot": {"loss_type": ["aot_unpaired"], "beta_dpo_alpha": 0.6},
    "reference_free": {"loss_type": ["sigmoid"], "reference_free": True},
}
NEEDS_BETA = {"simpo", "alphapo"}


def _groups(name: str) -> list[PromptGroup]:
    groups = build_groups(3, count=8)
    margins = np.linspace(-0.5, 1, 8).tolist() if name == "odpo" else [None] * 8
    weights = [1.0] * 8 if "aot" in name else np.linspace(0.5, 2, 8).tolist()
    columns = ("prompt_ids", "completion_ids", "completion_mask")
    return [
        PromptGroup(**{column: getattr(group, column) for column in columns}, margin=margin, weight=weight)
        for group, margin, weight in zip(groups, margins, weights, strict=True)
    ]


def build_passes(settings: dict[str, Any], max_tokens: int) -> Passes:
    """Passes over a tiny model whose reference is another one, so that no log-ratio is 0."""
    beta: dict[str, Any] = {"beta": 2.0} if NEEDS_BETA & set(settings["loss_type"]) else {}
    method = PreferenceMethod(DPOSettings(**(beta | settings)))
    reference = CachedReference(
        FrozenReference(Scorer(build_model("qwen2", seed=1))), LogpStore(None), starts_as_policy=False
    )
    return Passes(
        method=method,
        scorer=method.build_scorer(build_model("qwen2", seed=0), token_metrics=False),
        reference=reference if method.needs_reference else None,
        accelerator=float32_accelerator(),
        device=torch.device("cpu"),
        cut=Cut(shared=True, pad_id=0, max_tokens=max_tokens),
    )


def one_step(passes: Passes, groups: list[PromptGroup]) -> tuple[torch.Tensor, dict[str, float]]:
    """Gradient and metrics of one step, which the method's running state takes in."""
    sums = MetricSums()
    passes.advance(passes.train(range(len(groups)), groups, passes.method.denominators(groups), sums))
    return gradients(passes.scorer), sums.take_means(passes.ranks)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_in_1_2_or_8_micro_batches_is_one_update(name: str) -> None:
    groups = _groups(name)
    results = []
    for count, max_tokens in CUTS.items():
        passes = build_passes(SETTINGS[name], max_tokens)
        assert len(passes.cut.plan(range(8), groups).micro_batches) == count
        results.append(one_step(passes, groups))
    (gradient, metrics), *others = results
    assert gradient.norm() > 1e-3
    for other, others_metrics in others:
        assert relative_difference(other, gradient) < SAME_UPDATE
        assert others_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)


def test_a_coupled_step_of_one_micro_batch_needs_no_second_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, max_tokens in CUTS.items():
        passes = build_passes(SETTINGS["aot"], max_tokens)
        calls: list[bool] = []
        forward = passes.scorer.forward

        def counted(batch: Any, forward: Any = forward, calls: list[bool] = calls) -> Any:
            calls.append(torch.is_grad_enabled())
            return forward(batch)

        monkeypatch.setattr(passes.scorer, "forward", counted)
        one_step(passes, _groups("aot"))
        assert calls == ([True] if count == 1 else [False] * count + [True] * count)


def test_shadow_losses_are_logged_and_change_nothing() -> None:
    groups = _groups("sigmoid")
    plain, _ = one_step(build_passes({"loss_type": ["sigmoid"]}, 110), groups)
    shadows = ["hinge", "ipo", "bco_pair", "sft"]
    shadowed, metrics = one_step(build_passes({"loss_type": ["sigmoid"], "shadow_losses": shadows}, 110), groups)
    assert torch.equal(plain, shadowed)
    for name in shadows:
        _, alone = one_step(build_passes({"loss_type": [name]}, 110), groups)
        assert metrics[f"shadow/{name}"] == pytest.approx(alone["loss"], rel=1e-5)


@pytest.mark.parametrize("max_tokens", CUTS.values(), ids=[f"{count} micro-batches" for count in CUTS])
def test_shadow_losses_cost_no_forward(max_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the policy nor of the reference, in training and in evaluation."""
    groups = _groups("sigmoid")
    counts: list[list[str]] = []
    for shadows in ([], ["hinge", "ipo", "bco_pair", "sft", "simpo"]):
        passes = build_passes({"loss_type": ["sigmoid"], "beta": 2.0, "shadow_losses": shadows}, max_tokens)
        calls: list[str] = []
        live: Any = passes.reference and passes.reference.live
        for name, scorer in (("policy", passes.scorer), ("reference", live.scorer)):

            def counted(batch: Any, *, name: str = name, forward: Any = scorer.forward, to: Any = calls) -> Any:
                to.append(name)
                return forward(batch)

            monkeypatch.setattr(scorer, "forward", counted)
        one_step(passes, groups)
        sums = MetricSums()
        passes.evaluate(groups, passes.method.denominators(groups), sums, lambda _: None)
        assert len(shadows) == sum(name.startswith("shadow/") for name in sums.take_means(passes.ranks))
        counts.append(calls)
    assert counts[0]
    assert counts[0] == counts[1]


def test_each_term_is_logged_unweighted() -> None:
    _, metrics = one_step(build_passes(SETTINGS["mpo"], 110), _groups("mpo"))
    terms = [metrics[f"loss/{name}"] for name in ("sigmoid", "bco_pair", "sft")]
    assert metrics["loss"] == pytest.approx(0.8 * terms[0] + 0.2 * terms[1] + 1.0 * terms[2], rel=1e-5)


def test_bcos_baseline_is_the_mean_reward_of_the_steps_before() -> None:
    passes, groups = build_passes({"loss_type": ["bco_pair"], "beta": 0.5}, 110), _groups("bco_pair")
    _, first = one_step(passes, groups)
    state = copy.deepcopy(passes.method.state_tensors())
    delta = (first["rewards/chosen"] + first["rewards/rejected"]) / 2
    assert (state["baseline_sums"] / state["baseline_counts"]).mean().item() == pytest.approx(delta, rel=1e-5)
    _, second = one_step(passes, groups)
    assert second["loss"] != pytest.approx(first["loss"], rel=1e-3)
    resumed = build_passes({"loss_type": ["bco_pair"], "beta": 0.5}, 110)
    resumed.method.load_state_tensors(state)
    assert one_step(resumed, groups)[1] == second


def test_evaluation_leaves_running_state_as_it_is() -> None:
    for settings in ({"loss_type": ["bco_pair"]}, {"loss_type": ["sigmoid"], "beta_dpo_alpha": 0.6}):
        passes, groups = build_passes(settings, 110), _groups("bco_pair")
        one_step(passes, groups)
        before = {name: tensor.clone() for name, tensor in passes.method.state_tensors().items()}
        passes.evaluate(groups, passes.method.denominators(groups), MetricSums(), lambda _: None)
        after = passes.method.state_tensors()
        assert before
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_beta_dpo_moves_beta_by_the_steps_margin() -> None:
    passes, groups = build_passes({"loss_type": ["sigmoid"], "beta": 0.4, "beta_dpo_alpha": 0.6}, 110), _groups("x")
    _, plain = one_step(build_passes({"loss_type": ["sigmoid"], "beta": 0.4}, 110), groups)
    margin = plain["rewards/margins"]  # at beta 0.4
    _, metrics = one_step(passes, groups)
    running = 0.1 * margin
    assert metrics["beta"] == pytest.approx(0.4 * (1 + 0.6 * (margin - running)), rel=1e-4)
    assert passes.method.state_tensors()["running_margin"].item() == pytest.approx(running, rel=1e-4)
    _, second = one_step(passes, groups)
    running = 0.9 * running + 0.1 * margin
    assert second["beta"] == pytest.approx(0.4 * (1 + 0.6 * (margin - running)), rel=1e-4)


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.3), ("cosine", 0.3)])
def test_beta_follows_its_schedule(shape: str, middle: float) -> None:
    groups = _groups("x")
    settings = {"loss_type": ["sigmoid"], "beta": 0.1, "beta_final": 0.5, "beta_schedule": shape}
    for progress, expected in ((0.0, 0.1), (0.5, middle), (1.0, 0.5)):
        passes = build_passes(settings, 110)
        passes.method.set_progress(progress)
        gradient, metrics = one_step(passes, groups)
        constant, plain = one_step(build_passes({"loss_type": ["sigmoid"], "beta": expected}, 110), groups)
        assert metrics["beta"] == pytest.approx(expected)
        assert metrics["loss"] == pytest.approx(plain["loss"], rel=1e-5)
        assert relative_difference(gradient, constant) < 1e-5


def test_aot_in_evaluation_sorts_the_whole_held_out_set() -> None:
    groups = _groups("aot")
    losses = []
    for max_tokens in CUTS.values():
        passes, sums = build_passes(SETTINGS["aot"], max_tokens), MetricSums()
        passes.evaluate(groups, passes.method.denominators(groups), sums, lambda _: None)
        losses.append(sums.take_means(passes.ranks)["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def _of_config(**settings: Any) -> dict[str, Any]:
    """What a config makes of settings, for the objective."""
    config = DPOConfig(**settings)
    return {name: getattr(config, name) for name in DPOSettings.__dataclass_fields__}


def test_rpo_alpha_adds_the_mean_token_loss_of_the_chosen_completion_by_its_weight() -> None:
    groups = _groups("sigmoid")[:1]  # one pair: the record's logps are its own
    gradient, metrics = one_step(build_passes(_of_config(rpo_alpha=0.7, beta=0.3), 1000), groups)
    tokens = int(groups[0].completion_mask[0].sum())
    likelihood = -metrics["logps/chosen"] / tokens
    preference = math.log1p(math.exp(-metrics["rewards/margins"]))
    weight = groups[0].weight
    assert metrics["loss"] == pytest.approx(weight * (preference + 0.7 * likelihood), rel=1e-4)
    by_name = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7], "beta": 0.3}
    assert torch.equal(gradient, one_step(build_passes(_of_config(**by_name), 1000), groups)[0])
    assert not torch.equal(gradient, one_step(build_passes(_of_config(beta=0.3), 1000), groups)[0])


def test_rpo_alpha_of_0_and_none_add_nothing_and_a_second_likelihood_is_refused() -> None:
    assert DPOConfig(rpo_alpha=0.0).loss_type == DPOConfig(rpo_alpha=None).loss_type == ["sigmoid"]
    with pytest.raises(ConfigError, match="--rpo_alpha adds an sft term, and loss_type names one"):
        DPOConfig(rpo_alpha=0.5, loss_type=["sigmoid", "sft"])
    with pytest.raises(ConfigError, match="--rpo_alpha"):
        DPOConfig(rpo_alpha=-1.0)


def test_reference_free_compares_the_policys_own_log_probabilities() -> None:
    groups = _groups("sigmoid")[:1]
    passes = build_passes(_of_config(reference_free=True, beta=0.3), 1000)
    assert passes.reference is None
    _, metrics = one_step(passes, groups)
    margin = 0.3 * (metrics["logps/chosen"] - metrics["logps/rejected"])
    assert metrics["loss"] == pytest.approx(groups[0].weight * math.log1p(math.exp(-margin)), rel=1e-4)
    assert metrics["rewards/chosen"] == pytest.approx(0.3 * metrics["logps/chosen"], rel=1e-5)
