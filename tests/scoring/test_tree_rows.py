"""Tree rows, separate rows and the model's own forward say the same, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from builders import CONFIGS, build_groups, build_model, gradients, relative_difference
from burnish.batching.layout import lay_out
from burnish.data.groups import PromptGroup
from burnish.scoring.head import HeadExtras
from burnish.scoring.scorer import HeadPath, Scorer

# sdpa has no soft cap of attention scores, and says so.
KERNELS = [
    (name, kernel) for name in sorted(CONFIGS) for kernel in ("sdpa", "eager") if (name, kernel) != ("gemma2", "sdpa")
]
TOLERANCE = 1e-4


def _loss_and_gradient(scorer: Scorer, groups: list[PromptGroup], *, shared: bool) -> tuple[Tensor, Tensor]:
    scores = scorer(lay_out(groups, shared=shared, pad_id=0))
    coefficients = torch.linspace(-1, 1, len(scores.logps))
    (scores.logps * coefficients).sum().backward()
    return scores.token_logps.detach(), gradients(scorer.model)


@pytest.mark.parametrize(("name", "attention"), KERNELS)
def test_sharing_the_prompt_changes_neither_logps_nor_gradients(name: str, attention: str) -> None:
    scorer = Scorer(build_model(name, attention=attention))
    assert not scorer.architecture.unshareable
    groups = build_groups(7, k=3)
    scorer.head_path = HeadPath.WHOLE
    plain, plain_gradient = _loss_and_gradient(scorer, groups, shared=False)
    scorer.head_path = HeadPath.GATHERED
    for shared in (True, False):
        logps, gradient = _loss_and_gradient(scorer, groups, shared=shared)
        assert (logps - plain).abs().max() < TOLERANCE
        assert relative_difference(gradient, plain_gradient) < TOLERANCE


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_padding_does_not_change_the_scores(name: str) -> None:
    scorer = Scorer(build_model(name))
    groups = build_groups(3)
    together = scorer(lay_out(groups, shared=True, pad_id=0)).token_logps
    alone = torch.cat([scorer(lay_out([group], shared=True, pad_id=0)).token_logps for group in groups])
    assert (together - alone).abs().max() < TOLERANCE


def test_a_completion_does_not_see_its_sibling() -> None:
    scorer = Scorer(build_model("llama"))
    first, other = build_groups(1, count=2)
    swapped = PromptGroup(
        first.prompt_ids,
        (first.completion_ids[0], other.completion_ids[1]),
        (first.completion_mask[0], other.completion_mask[1]),
    )
    scores, changed = (scorer(lay_out([group], shared=True, pad_id=0)).logps for group in (first, swapped))
    assert abs(scores[0] - changed[0]) < 1e-5
    assert abs(scores[1] - changed[1]) > 1e-2


def test_mean_logits_entropy_and_accuracy_equal_those_of_all_logits() -> None:
    for name in ("qwen2", "gemma2", "granite"):
        scorer = Scorer(build_model(name), extras=HeadExtras(token_metrics=True))
        batch = lay_out(build_groups(5), shared=True, pad_id=0)
        scores = scorer(batch)
        scorer.head_path = HeadPath.WHOLE
        plain = scorer(batch)
        assert torch.allclose(scores.mean_logit_sums, plain.mean_logit_sums, atol=1e-4, rtol=1e-4)
        assert scores.entropies is not None
        assert torch.allclose(scores.entropies, plain.entropies, atol=1e-4)
        assert torch.equal(scores.correct, plain.correct)
