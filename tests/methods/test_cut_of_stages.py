"""The other stages in the engine: the cut of a step is invisible, and what couples a step costs what is documented."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from builders import CONFIGS, build_groups, build_model, float32_accelerator, gradients, relative_difference
from burnish.data.groups import PromptGroup
from burnish.engine.cut import Cut
from burnish.engine.method import Method, MicroBatchLoss, Scored
from burnish.engine.metrics import MetricSums
from burnish.engine.passes import Passes
from burnish.methods.kto import KTOSettings
from burnish.methods.reward import RewardSettings
from burnish.methods.rewarding import RewardMethod
from burnish.methods.sft import SFTSettings
from burnish.methods.supervised import SupervisedMethod
from burnish.methods.unpaired import UnpairedMethod
from burnish.models.cached_reference import CachedReference
from burnish.models.logp_store import LogpStore
from burnish.models.reference import FrozenReference
from burnish.objectives.unpaired import UNPAIRED
from burnish.scoring.scorer import Scorer

SAME_UPDATE = 1e-4
ROWS = 8
WHOLE = 100_000
Step = tuple[torch.Tensor, dict[str, float]]

METHODS: dict[str, Method] = {
    **{name: UnpairedMethod(KTOSettings(loss_type=name, beta=0.3)) for name in UNPAIRED},  # pyright: ignore[reportArgumentType]
    "kto, weighted": UnpairedMethod(KTOSettings(beta=0.3, desirable_weight=1.5, undesirable_weight=0.5)),
    "nll": SupervisedMethod(SFTSettings()),
    "nll, smoothed": SupervisedMethod(SFTSettings(label_smoothing_factor=0.1)),
    "dft": SupervisedMethod(SFTSettings(loss_type="dft", z_loss_coef=0.01)),
    "reward": RewardMethod(RewardSettings()),
    "reward, centered": RewardMethod(RewardSettings(center_rewards_coefficient=0.1)),
    "reward, smoothed": RewardMethod(RewardSettings()),
    "reward of lists": RewardMethod(RewardSettings()),
}


def _groups(name: str) -> list[PromptGroup]:
    k = 3 if "lists" in name else 2 if "reward" in name else 1
    is_unpaired = name.split(",")[0] in UNPAIRED
    return [
        replace(
            group,
            weight=0.5 + number / 4,
            label=number % 3 == 0 if is_unpaired else None,
            ranking=(1, 0, 1) if k == 3 else None,
            label_smoothing=number / 20 if name == "reward, smoothed" else None,
        )
        for number, group in enumerate(build_groups(3, count=ROWS, k=k))
    ]


def _passes(method: Method, max_tokens: int, *, shared: bool = True, packed: bool = False) -> Passes:
    """Passes over a tiny model whose reference is another one, so that no log-ratio is 0."""
    if isinstance(method, RewardMethod):
        torch.manual_seed(0)
        config: Any = copy.deepcopy(CONFIGS["qwen2"])
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    else:
        model = build_model("qwen2", seed=0)
    frozen = FrozenReference(Scorer(build_model("qwen2", seed=1)))
    reference = CachedReference(frozen, LogpStore(None), starts_as_policy=False)
    return Passes(
        method=method,
        scorer=method.build_scorer(model, token_metrics=False),
        reference=reference if method.needs_reference else None,
        accelerator=float32_accelerator(),
        device=torch.device("cpu"),
        cut=Cut(shared=shared, pad_id=0, max_tokens=max_tokens, packed=packed),
    )


def _step(passes: Passes, groups: list[PromptGroup]) -> Step:
    sums = MetricSums()
    passes.train(range(len(groups)), groups, passes.method.denominators(groups), sums)
    return gradients(passes.scorer), sums.take_means(passes.ranks)


def _evaluation(passes: Passes, groups: list[PromptGroup]) -> dict[str, float]:
    sums = MetricSums()
    passes.evaluate(groups, passes.method.denominators(groups), sums, lambda _: None)
    return sums.take_means(passes.ranks)


def _budget(groups: list[PromptGroup], count: int) -> int:
    """A budget of tokens that makes so many micro-batches."""
    for max_tokens in range(1, 2000):
        plan = Cut(shared=True, pad_id=0, max_tokens=max_tokens).plan(range(len(groups)), groups)
        if len(plan.micro_batches) == count:
            return max_tokens
    raise AssertionError(f"no budget makes {count} micro-batches")


@pytest.mark.parametrize("name", METHODS)
def test_a_step_in_1_2_or_8_micro_batches_is_one_update(name: str) -> None:
    groups, method = _groups(name), METHODS[name]
    expected, metrics = _step(_passes(method, WHOLE), groups)
    assert expected.norm() > 1e-3
    assert metrics.get("kl", 1) > 0
    for count in (2, 8):
        gradient, others = _step(_passes(method, _budget(groups, count)), groups)
        assert relative_difference(gradient, expected) < SAME_UPDATE
        assert others == pytest.approx(metrics, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("layout", [{"shared": False}, {"packed": True}], ids=["separate rows", "packed"])
@pytest.mark.parametrize("name", ["kto", "kto, weighted", "reward of lists"])
def test_the_layout_of_rows_changes_no_update(name: str, layout: dict[str, bool]) -> None:
    groups, method = _groups(name), METHODS[name]
    expected, metrics = _step(_passes(method, WHOLE), groups)
    for max_tokens in (WHOLE, 60):
        gradient, others = _step(_passes(method, max_tokens, **layout), groups)
        assert relative_difference(gradient, expected) < SAME_UPDATE
        assert others == pytest.approx(metrics, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["nll", "nll, smoothed", "dft"])
def test_rows_filled_with_several_examples_have_the_gradients_of_rows_of_their_own(name: str) -> None:
    """Packing mixes no two examples: each sees itself only, and its positions begin at 0."""
    groups, method = _groups(name), METHODS[name]
    expected, metrics = _step(_passes(method, WHOLE, shared=False), groups)
    for row_tokens, num_rows in ((40, 3), (WHOLE, 1)):
        passes = _passes(method, WHOLE)
        passes.cut = replace(passes.cut, row_tokens=row_tokens)
        (micro,) = passes.cut.plan(range(ROWS), groups).micro_batches
        assert micro.num_rows == num_rows
        gradient, others = _step(passes, groups)
        assert relative_difference(gradient, expected) < 1e-5
        assert others == pytest.approx(metrics, rel=1e-5)


@pytest.mark.parametrize("name", ["kto", "nll", "reward"])
def test_an_evaluation_says_what_training_says_however_it_is_cut(name: str) -> None:
    groups, method = _groups(name), METHODS[name]
    _, metrics = _step(_passes(method, WHOLE), groups)
    for max_tokens in (WHOLE, 60, 1):
        assert _evaluation(_passes(method, max_tokens), groups) == pytest.approx(metrics, rel=1e-4, abs=1e-5)


def _count_tokens(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Tokens that policy and reference compute from here on."""
    computed = {"policy": 0, "reference": 0}
    assert passes.reference is not None
    live: Any = passes.reference.live
    for name, scorer in (("policy", passes.scorer), ("reference", live.scorer)):

        def counted(batch: Any, name: str = name, forward: Any = scorer.forward) -> Any:
            computed[name] += batch.num_computed_tokens
            return forward(batch)

        monkeypatch.setattr(scorer, "forward", counted)
    return computed


def test_the_kl_term_computes_one_more_completion_a_row_and_no_prompt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, method = _groups("kto"), METHODS["kto"]
    prompts = sum(len(group.prompt_ids) for group in groups)
    completions = sum(len(group.completion_ids[0]) for group in groups)
    least = prompts + 2 * completions
    computed = _count_tokens(passes := _passes(method, WHOLE), monkeypatch)
    _step(passes, groups)
    assert computed == {"policy": least, "reference": least}
    for max_tokens in (WHOLE, 60, 1):
        computed = _count_tokens(passes := _passes(method, max_tokens), monkeypatch)
        _evaluation(passes, groups)
        assert computed == {"policy": least, "reference": least}
        _evaluation(passes, groups)
        assert computed == {"policy": 2 * least, "reference": least}  # the reference has said it all


def test_a_cut_step_scores_the_other_completions_after_their_prompts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph is kept over micro-batches: the whole step's KL term is known before the first of them is scored."""
    groups, method = _groups("kto"), METHODS["kto"]
    prompts = sum(len(group.prompt_ids) for group in groups)
    completions = sum(len(group.completion_ids[0]) for group in groups)
    computed = _count_tokens(passes := _passes(method, 60), monkeypatch)
    _step(passes, groups)
    assert computed == {"policy": 2 * (prompts + completions), "reference": prompts + 2 * completions}


@pytest.mark.parametrize("max_tokens", [WHOLE, 60])
def test_the_reference_scores_what_is_new_after_a_prompt_and_nothing_again(
    max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, method = _groups("kto"), METHODS["kto"]
    prompts = sum(len(group.prompt_ids) for group in groups)
    completions = sum(len(group.completion_ids[0]) for group in groups)
    computed = _count_tokens(passes := _passes(method, max_tokens), monkeypatch)
    for epochs, order in enumerate((groups, groups[::-1], groups), start=1):  # reversed, each meets the one after it
        _step(passes, order)
        assert computed["reference"] == min(epochs, 2) * (prompts + completions) + completions
    expected, metrics = _step(_passes(method, max_tokens), groups)
    gradient, others = _step(passes, groups)
    assert relative_difference(gradient, expected) < SAME_UPDATE
    assert others == pytest.approx(metrics, rel=1e-4, abs=1e-5)


def _at_start(scored: Scored, outcome: MicroBatchLoss, denominators: Mapping[str, float]) -> None:
    """Stand at the start of a run, where the engine lets policy and reference compute alike."""


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("max_tokens", [WHOLE, 60, 1])
def test_rewards_are_exactly_0_where_policy_and_reference_are_one(max_tokens: int, packed: bool) -> None:
    groups = _groups("kto")
    for run in (lambda passes: _step(passes, groups)[1], lambda passes: _evaluation(passes, groups)):
        passes = _passes(METHODS["kto"], max_tokens, packed=packed)
        same = FrozenReference(Scorer(build_model("qwen2", seed=0)))
        passes.reference = CachedReference(same, LogpStore(None), starts_as_policy=True)
        passes.at_start = _at_start
        for _ in range(2):
            metrics = run(passes)
            assert (metrics["rewards/accuracies"], metrics["rewards/chosen"], metrics["kl"]) == (0, 0, 0)
