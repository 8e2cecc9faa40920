"""A completion's reward is what AutoModelForSequenceClassification pools, whatever the model and its padding token."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from builders import CONFIGS, build_groups
from burnish.batching.layout import lay_out
from burnish.data.groups import PromptGroup
from burnish.models.reward import RewardScorer

PAD = 7
"""Also the end of text, as where a tokenizer has no padding token of its own."""
WITH_A_HEAD = [name for name, config in CONFIGS.items() if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING]


def _build(name: str) -> Any:
    config: Any = copy.deepcopy(CONFIGS[name])
    config.num_labels, config.pad_token_id = 1, PAD
    torch.manual_seed(0)
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    return model.eval()


def _groups() -> list[PromptGroup]:
    """Completions that end with one end of text, with two, without one, have one inside, or are nothing else."""
    groups = build_groups(3, count=5, k=2)
    endings = ([PAD], [PAD, PAD], [], [PAD, 9], None)
    made = []
    for group, ending in zip(groups, endings, strict=True):
        first, second = group.completion_ids
        ids = np.full_like(first, PAD) if ending is None else np.concatenate([first, np.array(ending, first.dtype)])
        masks = (np.ones(len(ids), bool), group.completion_mask[1])
        made.append(replace(group, completion_ids=(ids, second), completion_mask=masks))
    return made


def test_most_architectures_have_a_scalar_head() -> None:
    assert len(WITH_A_HEAD) >= 5, WITH_A_HEAD


@pytest.mark.parametrize("shared", [True, False], ids=["prompts once", "prompts repeated"])
@pytest.mark.parametrize("name", WITH_A_HEAD)
def test_rewards_are_what_transformers_pools(name: str, shared: bool) -> None:
    model, groups = _build(name), _groups()
    with torch.no_grad():
        scored = RewardScorer(model)(lay_out(groups, shared=shared, pad_id=PAD)).given_rewards
        expected = [
            model(input_ids=torch.tensor([[*group.prompt_ids.tolist(), *ids.tolist()]])).logits[0, 0]
            for group in groups
            for ids in group.completion_ids
        ]
    torch.testing.assert_close(scored, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert float(torch.stack(expected).std()) > 1e-2
