"""Labelled completions: losses, KTO's mismatched rows, balance, metrics."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from burnish.errors import DataError
from burnish.objectives.unpaired import (
    UNPAIRED,
    UnpairedScores,
    add_margins,
    balanced_desirable_weight,
    kl_reward,
    mismatched_rows,
    unpaired_metrics,
)
from objectives.cases import arguments
from objectives.oracles import UNPAIRED_ORACLES

SETTINGS: dict[str, Any] = {
    "beta": 0.3,
    "kl_reward": 0.4,
    "reward_baseline": -0.2,
    "desirable_weight": 1.3,
    "undesirable_weight": 0.6,
}
quick = settings(max_examples=60, deadline=None)


def random_scores(seed: int = 0, rows: int = 10, logps: Tensor | None = None) -> UnpairedScores:
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, generator=generator, dtype=torch.float64)

    own = uniform(-9, -1)
    return UnpairedScores(
        logps=own if logps is None else logps,
        ref_logps=own + uniform(-4, 4),
        num_tokens=torch.randint(1, 9, (rows,), generator=generator).double(),
        is_desirable=torch.randint(0, 2, (rows,), generator=generator).double(),
        weight=uniform(0.5, 2),
    )


def losses(name: str, scores: UnpairedScores) -> Tensor:
    function = UNPAIRED[name].function
    return function(scores, **arguments(function, SETTINGS))


@pytest.mark.parametrize("name", UNPAIRED)
def test_losses_equal_the_oracle(name):
    scores = random_scores(1)
    rows = zip(scores.logratio.tolist(), scores.is_desirable.bool().tolist(), strict=True)
    expected = [UNPAIRED_ORACLES[name](ratio, desirable, SETTINGS) for ratio, desirable in rows]
    assert losses(name, scores).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", UNPAIRED)
def test_gradients_equal_finite_differences(name):
    logps = random_scores(2).logps.requires_grad_()
    assert torch.autograd.gradcheck(lambda it: losses(name, random_scores(2, logps=it)), logps)


@pytest.mark.parametrize("name", UNPAIRED)
def test_values_and_gradients_are_finite_at_log_ratios_of_ten_thousand(name):
    logps = torch.tensor([-1e4, 1e4, 0.0] * 2).requires_grad_()
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    ones = torch.ones(6)
    scores = UnpairedScores(logps=logps, ref_logps=torch.zeros(6), num_tokens=ones, is_desirable=labels, weight=ones)
    values = losses(name, scores)
    (gradient,) = torch.autograd.grad(values.sum(), logps)
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradient).all()


def test_the_kl_term_is_the_steps_mean_and_never_negative():
    ratios = torch.tensor([1.0, 2.0, -1.5], requires_grad=True)
    assert kl_reward(ratios, beta=0.3).item() == pytest.approx(0.15)
    assert not kl_reward(ratios, beta=0.3).requires_grad
    assert kl_reward(-ratios, beta=0.3).item() == 0


def test_rows_take_the_completion_of_the_row_before_as_trl_does():
    assert mismatched_rows(["a", "b", "c", "d"]) == [3, 0, 1, 2]


def test_rows_that_share_a_prompt_take_the_next_row_with_another_one():
    assert mismatched_rows(["a", "a", "b"]) == [2, 2, 1]
    assert mismatched_rows(["a", "a", "b", "b", "b"]) == [4, 2, 1, 0, 0]


@given(prompts=st.lists(st.sampled_from("abc"), min_size=2, max_size=9))
@quick
def test_a_mismatched_completion_never_belongs_to_the_same_prompt(prompts):
    if len(set(prompts)) == 1:
        with pytest.raises(DataError, match="all rows of an optimizer step have one prompt"):
            mismatched_rows(prompts)
        return
    partners = mismatched_rows(prompts)
    assert all(prompts[row] != prompts[partner] for row, partner in enumerate(partners))
    if len(set(prompts)) == len(prompts):
        assert set(Counter(partners).values()) == {1}


@given(desirable=st.integers(1, 10_000), undesirable=st.integers(1, 10_000), weight=st.floats(0.1, 10))
@quick
def test_balanced_labels_weigh_between_1_and_four_thirds(desirable, undesirable, weight):
    balanced = balanced_desirable_weight(desirable, undesirable, undesirable_weight=weight)
    ratio = balanced * desirable / (weight * undesirable)
    assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9
    if 1 <= desirable / (weight * undesirable) <= 4 / 3:
        assert balanced == 1


def test_one_label_alone_needs_no_balance():
    assert balanced_desirable_weight(10, 0) == 1
    assert balanced_desirable_weight(0, 10) == 1


def test_metrics_are_means_by_label():
    scores = random_scores(3)
    rewards = 0.3 * scores.logratio
    logits = torch.linspace(-1, 1, 10, dtype=torch.float64)
    sums = unpaired_metrics(scores, rewards, logits)
    got = add_margins({key: (total / count).item() for key, (total, count) in sums.items()})
    rows = list(zip(rewards.tolist(), scores.is_desirable.tolist(), strict=True))
    chosen = [reward for reward, label in rows if label]
    rejected = [reward for reward, label in rows if not label]
    right = [reward > 0 if label else reward < 0 for reward, label in rows]
    labels, tokens = scores.is_desirable.bool(), scores.num_tokens
    assert got == pytest.approx(
        {
            "rewards/chosen": sum(chosen) / len(chosen),
            "rewards/rejected": sum(rejected) / len(rejected),
            "rewards/margins": sum(chosen) / len(chosen) - sum(rejected) / len(rejected),
            "rewards/accuracies": sum(right) / len(right),
            "logps/chosen": scores.logps[labels].mean().item(),
            "logps/rejected": scores.logps[~labels].mean().item(),
            "logits/chosen": (logits[labels].sum() / tokens[labels].sum()).item(),
            "logits/rejected": (logits[~labels].sum() / tokens[~labels].sum()).item(),
        }
    )


def test_a_reward_of_zero_is_no_success():
    scores = random_scores(4)
    assert unpaired_metrics(scores, torch.zeros(10))["rewards/accuracies"][0].item() == 0
