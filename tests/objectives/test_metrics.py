"""Metrics of pairs: exact over any cut, strict about ties, blind to row weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from burnish.objectives.metrics import preference_metrics, preference_rewards
from burnish.objectives.scores import PairScores
from objectives.cases import as_numbers, map_tensors, random_scores


def means(scores: PairScores, logit_sums: torch.Tensor, sizes: list[int]) -> dict[str, float]:
    """Means over a cut of the pairs, as the engine takes them."""
    sums: dict[str, torch.Tensor] = {}
    for index in torch.arange(scores.num_pairs).split(sizes):
        part = map_tensors(scores, lambda tensor, index=index: tensor.index_select(0, index))
        logits = logit_sums.view(-1, 2).index_select(0, index).flatten()
        rewards = preference_rewards(part, "logratio", beta=0.3)
        for key, (total, count) in preference_metrics(part, *rewards, logits).items():
            sums[key] = sums.get(key, torch.zeros(2)) + torch.stack([total.double(), count.double()])
    return {key: (pair[0] / pair[1]).item() for key, pair in sums.items()}


def test_means_equal_a_loop_over_pairs():
    scores = random_scores(41)
    logit_sums = torch.linspace(-3, 5, 24, dtype=torch.float64)
    pairs = as_numbers(scores)
    got = means(scores, logit_sums, [12])
    tokens = [sum(pair.chosen_tokens for pair in pairs), sum(pair.rejected_tokens for pair in pairs)]
    expected = {
        "rewards/chosen": sum(0.3 * pair.lw for pair in pairs) / 12,
        "rewards/rejected": sum(0.3 * pair.ll for pair in pairs) / 12,
        "rewards/accuracies": sum(pair.lw > pair.ll for pair in pairs) / 12,
        "rewards/margins": sum(0.3 * (pair.lw - pair.ll) for pair in pairs) / 12,
        "logps/chosen": sum(pair.chosen_logp for pair in pairs) / 12,
        "logps/rejected": sum(pair.rejected_logp for pair in pairs) / 12,
        "logps/accuracies": sum(pair.chosen_logp > pair.rejected_logp for pair in pairs) / 12,
        "logits/chosen": logit_sums[0::2].sum().item() / tokens[0],
        "logits/rejected": logit_sums[1::2].sum().item() / tokens[1],
    }
    assert got == pytest.approx(expected)


def test_the_cut_does_not_change_the_means():
    scores = random_scores(42)
    logit_sums = torch.linspace(-3, 5, 24, dtype=torch.float64)
    assert means(scores, logit_sums, [1, 7, 4]) == pytest.approx(means(scores, logit_sums, [12]))


def test_equal_rewards_are_no_success():
    scores = random_scores(43)
    scores = replace(scores, rejected_logps=scores.chosen_logps)
    ones = torch.ones(12)
    metrics = preference_metrics(scores, ones, ones)
    assert metrics["rewards/accuracies"][0].item() == 0
    assert metrics["logps/accuracies"][0].item() == 0


def test_row_weights_do_not_enter():
    scores = random_scores(44)
    heavy = replace(scores, weight=scores.weight * 5)
    zeros = torch.zeros(24)
    assert means(heavy, zeros, [12]) == means(scores, zeros, [12])


def test_metrics_hold_no_graph():
    scores = map_tensors(random_scores(45), lambda tensor: tensor.clone().requires_grad_())
    metrics = preference_metrics(scores, *preference_rewards(scores, "logratio", beta=0.3), torch.zeros(24))
    assert not any(total.requires_grad for total, _ in metrics.values())
