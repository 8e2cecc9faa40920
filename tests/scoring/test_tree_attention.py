"""Packed rows say what separate rows say, and their attention sees what the tree mask sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import CONFIGS, build_groups, build_model, gradients, relative_difference
from burnish.batching.layout import TreeShape, lay_out
from burnish.batching.planner import plan_packed_step
from burnish.scoring import tree_attention
from burnish.scoring.architecture import PACKED_WITHOUT_CHECK
from burnish.scoring.masks import tree_mask
from burnish.scoring.scorer import Scorer
from burnish.scoring.self_check import choose_scoring
from burnish.scoring.tree_attention import GATHERED_TOKENS, SMALL_GROUP_TOKENS, arrange_blocks

PACKABLE = sorted(name for name in CONFIGS if Scorer(build_model(name)).architecture.packable)
shapes = st.lists(
    st.builds(TreeShape, st.integers(0, 150), st.lists(st.integers(1, 90), min_size=1, max_size=3).map(tuple)),
    min_size=1,
    max_size=12,
)


def _scores_and_gradient(scorer: Scorer, **layout: Any) -> tuple[torch.Tensor, torch.Tensor]:
    scores = scorer(lay_out(build_groups(7, k=3), pad_id=0, **layout))
    (scores.logps * torch.linspace(-1, 1, len(scores.logps))).sum().backward()
    return scores.token_logps.detach(), gradients(scorer.model)


@pytest.mark.parametrize("small", [0, SMALL_GROUP_TOKENS], ids=["by group", "gathered"])
@pytest.mark.parametrize("name", PACKABLE)
def test_packing_changes_neither_logps_nor_gradients(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_attention, "SMALL_GROUP_TOKENS", small)
    scorer = Scorer(build_model(name))
    plain, plain_gradient = _scores_and_gradient(scorer, shared=False)
    logps, gradient = _scores_and_gradient(scorer, shared=True, packed=True)
    assert (logps - plain).abs().max() < 1e-4
    assert relative_difference(gradient, plain_gradient) < 1e-4


def test_what_is_packed_without_a_check_is_tested_here() -> None:
    tested = {CONFIGS[name].model_type for name in PACKABLE}
    assert tested | {"mistral"} >= PACKED_WITHOUT_CHECK


@pytest.mark.parametrize("name", ["mistral-window", "gemma2"])
def test_windows_and_soft_caps_keep_the_mask(name: str) -> None:
    choice = choose_scoring(Scorer(build_model(name)), build_groups(0), pad_id=0)
    assert (choice.shared, choice.packed) == (True, False)


def test_a_packed_attention_that_errs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_scoring(Scorer(build_model("llama")), build_groups(0), pad_id=0).packed
    wrong = lambda lengths, device: torch.ones(lengths[1], sum(lengths), dtype=torch.bool, device=device)  # noqa: E731
    monkeypatch.setattr(tree_attention, "_completion_mask", wrong)
    monkeypatch.setattr(tree_attention, "SMALL_GROUP_TOKENS", 0)
    choice = choose_scoring(Scorer(build_model("llama")), build_groups(0), pad_id=0)
    assert (choice.shared, choice.packed) == (True, False)


@given(shapes)
@settings(deadline=None, max_examples=30)
def test_blocks_hold_every_group_in_order_and_gather_only_small_ones(trees: list[TreeShape]) -> None:
    blocks = arrange_blocks(trees)
    assert [group for block in blocks for group in block.groups] == trees
    for block in blocks:
        assert len(block.groups) == 1 or sum(group.num_tokens for group in block.groups) <= GATHERED_TOKENS


def test_the_mask_of_gathered_groups_is_the_tree_mask_on_the_diagonal() -> None:
    groups = build_groups(2, count=3, k=2)
    batch = lay_out(groups, shared=True, pad_id=0, packed=True)
    assert batch.trees is not None
    visible = tree_attention._groups_mask(batch.trees, torch.device("cpu"))
    start = 0
    for group, tree in zip(groups, batch.trees, strict=True):
        alone = lay_out([group], shared=True, pad_id=0)
        expected = tree_mask(alone.segment_ids, alone.position_ids)[0, 0]
        block = slice(start, start + tree.num_tokens)
        assert torch.equal(visible[block, block], expected)
        visible[block, block] = False
        start += tree.num_tokens
    assert not visible.any()


def test_a_model_that_was_packed_generates_and_scores_padded_rows_as_before() -> None:
    scorer = Scorer(build_model("llama"))
    padded = lay_out(build_groups(3), shared=False, pad_id=0)
    before = scorer(padded).token_logps
    scorer(lay_out(build_groups(3), shared=True, pad_id=0, packed=True))
    assert torch.equal(scorer(padded).token_logps, before)
    saved: Any = scorer.model.config
    assert "burnish" not in str(saved.to_dict())


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 2000))
def test_packed_micro_batches_hold_every_group_once_within_the_budget(lengths: list[int], budget: int) -> None:
    indices = list(range(100, 100 + len(lengths)))
    plan = plan_packed_step(indices, lengths, budget)
    assert sorted(index for micro in plan.micro_batches for index in micro.groups) == indices
    for micro in plan.micro_batches:
        assert micro.num_padded_tokens == sum(lengths[index - 100] for index in micro.groups)
        assert micro.num_padded_tokens <= budget or len(micro.groups) == 1


def test_packed_micro_batches_differ_by_less_than_a_group() -> None:
    lengths = [100 + 20 * (i % 4) for i in range(16)]
    sizes = [micro.length for micro in plan_packed_step(range(16), lengths, 1024).micro_batches]
    assert len(sizes) == 3
    assert max(sizes) - min(sizes) <= max(lengths)
