"""Examples that share a row do not see each other: scores and gradients are those of separate rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from builders import CONFIGS, build_groups, build_model, gradients, relative_difference
from burnish.batching.layout import lay_out
from burnish.batching.planner import best_fit, plan_filled_rows
from burnish.scoring.head import HeadExtras
from burnish.scoring.neftune import example_lengths
from burnish.scoring.scorer import Scorer


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_score_and_differentiate_as_separate_rows_do(name: str) -> None:
    model = build_model(name)
    scorer = Scorer(model)
    groups = build_groups(3, count=6, k=1)
    results = []
    for row_sizes in (None, [1, 2, 3]):
        scores = scorer(lay_out(groups, shared=True, pad_id=0, row_sizes=row_sizes))
        (scores.logps * torch.arange(1, 7)).sum().backward()
        results.append((scores.token_logps.detach(), gradients(model)))
    (separate, separate_gradient), (packed, packed_gradient) = results
    assert torch.allclose(packed, separate, atol=1e-4)
    assert relative_difference(packed_gradient, separate_gradient) < 1e-4


def test_a_packed_example_does_not_see_its_neighbour() -> None:
    scorer = Scorer(build_model("qwen2"))
    first, second, third = build_groups(4, count=3, k=1)
    alone = scorer(lay_out([second, first], shared=True, pad_id=0, row_sizes=[2])).logps[0]
    beside = scorer(lay_out([third, second], shared=True, pad_id=0, row_sizes=[2])).logps[1]
    assert alone.item() == pytest.approx(beside.item(), abs=1e-4)


def test_every_example_stands_in_one_row_that_has_room_for_it() -> None:
    generator = np.random.default_rng(0)
    lengths = [int(n) for n in generator.integers(1, 60, 200)]
    bins = best_fit(lengths, 64)
    assert sorted(item for row in bins for item in row) == list(range(200))
    assert all(sum(lengths[item] for item in row) <= 64 for row in bins)
    assert len(bins) <= 1.1 * sum(lengths) / 64 + 1
    assert best_fit([100, 3], 64) == [[0], [1]]


def test_the_plan_says_how_rows_are_filled() -> None:
    plan = plan_filled_rows([10, 11, 12, 13], [30, 20, 10, 25], 64, row_tokens=40)
    placed = [micro.groups for micro in plan.micro_batches]
    assert sorted(group for groups in placed for group in groups) == [10, 11, 12, 13]
    assert all(sum(micro.row_sizes or ()) == len(micro.groups) for micro in plan.micro_batches)
    assert all(micro.num_padded_tokens <= 80 for micro in plan.micro_batches)


@pytest.mark.parametrize("layout", [{}, {"row_sizes": [2, 2]}, {"packed": True}], ids=str)
def test_lengths_of_examples_do_not_depend_on_packing(layout: dict[str, Any]) -> None:
    groups = build_groups(5, count=4, k=1)
    batch = lay_out(groups, shared=True, pad_id=0, **layout)
    lengths = example_lengths(batch)
    of_tokens = sorted(lengths[batch.segment_ids >= 0].tolist())
    assert of_tokens == sorted(float(group.num_tree_tokens) for group in groups for _ in range(group.num_tree_tokens))


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "granite"])
def test_normalisers_and_mean_log_probabilities_have_the_gradients_of_plain_logits(name: str) -> None:
    model = build_model(name)
    groups = build_groups(6, count=3, k=1)
    batch = lay_out(groups, shared=False, pad_id=0)
    scores = Scorer(model, extras=HeadExtras(normalizers=True))(batch)
    (scores.mean_logps.sum() + 0.1 * scores.log_normalizers.square().sum() - scores.logps.sum()).backward()
    ours = gradients(model)
    logits = _plain_logits(model, batch)
    normalisers = torch.logsumexp(logits, dim=1)
    logps = logits.gather(1, batch.targets[:, None]).squeeze(1) - normalisers
    means = logits.mean(dim=1) - normalisers
    (means.sum() + 0.1 * normalisers.square().sum() - logps.sum()).backward()
    assert torch.allclose(scores.mean_logps, means, atol=1e-4)
    assert relative_difference(ours, gradients(model)) < 1e-4


def _plain_logits(model: Any, batch: Any) -> torch.Tensor:
    mask = (batch.segment_ids >= 0).long()
    logits = model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).logits
    return logits.reshape(-1, logits.shape[-1]).index_select(0, batch.predictors)
