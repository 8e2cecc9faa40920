"""NEFTune's noise: uniform, of the paper's scale for each example's own length, and in training passes only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import build_group, build_model
from burnish.batching.layout import MicroBatch, lay_out
from burnish.methods.sft import SFTConfig
from burnish.models.adapters import add_adapter
from burnish.models.reference import AdapterOffReference, FrozenReference
from burnish.scoring.neftune import example_lengths
from burnish.scoring.scorer import Scorer

ALPHA = 5.0
LAYOUTS: dict[str, dict[str, Any]] = {
    "padded": {"shared": False},
    "packed": {"shared": True, "packed": True},
    "filled rows": {"shared": False, "row_sizes": (2, 1)},
}


def _batch(layout: str) -> MicroBatch:
    """Three examples of 20, 50 and 90 tokens."""
    generator = np.random.default_rng(0)
    groups = [build_group(generator, prompt=4, completions=(length,)) for length in (16, 46, 86)]
    return lay_out(groups, pad_id=0, **LAYOUTS[layout])


class _Embedded:
    """What the first layer is given, call by call."""

    def __init__(self, model: Any) -> None:
        self.seen: list[Tensor] = []
        model.model.layers[0].register_forward_pre_hook(self._see, with_kwargs=True)

    def _see(self, _: Any, args: tuple[Any, ...], words: dict[str, Any]) -> None:
        self.seen.append((args[0] if args else words["hidden_states"]).detach().clone())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_noise_is_uniform_within_alpha_over_the_root_of_tokens_times_width(layout: str) -> None:
    model, batch = build_model("qwen2"), _batch(layout)
    embedded, scorer = _Embedded(model), Scorer(model, neftune_noise_alpha=ALPHA)
    plain = model.get_input_embeddings()(batch.input_ids)  # pyright: ignore[reportCallIssue]
    for _ in range(30):
        scorer(batch)
    noise = torch.stack([given - plain for given in embedded.seen])
    lengths = example_lengths(batch)
    assert {20, 50, 90} <= set(lengths.flatten().tolist())
    for tokens in (20, 50, 90):
        of_example = noise[:, lengths == tokens]
        bound = ALPHA / math.sqrt(tokens * model.config.hidden_size)
        assert of_example.abs().max() <= bound * (1 + 1e-5)
        assert of_example.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)  # of U(-bound, bound)
        assert abs(of_example.mean().item()) < 0.02 * bound
    assert not torch.equal(noise[0], noise[1])


def test_evaluation_and_references_get_no_noise() -> None:
    model, batch = build_model("qwen2"), _batch("padded")
    embedded, scorer = _Embedded(model), Scorer(model, neftune_noise_alpha=ALPHA)
    plain = model.get_input_embeddings()(batch.input_ids)  # pyright: ignore[reportCallIssue]
    scorer.eval()
    scorer(batch)
    scorer.train()
    FrozenReference(Scorer(model, neftune_noise_alpha=ALPHA)).score(batch)
    adapted = Scorer(add_adapter(model, SFTConfig(use_peft=True)), neftune_noise_alpha=ALPHA)
    AdapterOffReference(adapted).score(batch)
    assert len(embedded.seen) == 3
    assert all(torch.equal(given, plain) for given in embedded.seen)
