"""Tree rows and separate rows name the same counted tokens in the same order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from builders import build_group, build_groups
from burnish.batching.layout import PADDING, lay_out, row_shape
from burnish.data.groups import PromptGroup


def _expected_counted(groups: list[PromptGroup]) -> list[tuple[int, int]]:
    """(target, token before it in its own text) of each counted token, by the plain reading of a group."""
    expected = []
    for group in groups:
        for ids, mask in zip(group.completion_ids, group.completion_mask, strict=True):
            text = np.concatenate([group.prompt_ids, ids])
            start = len(group.prompt_ids)
            expected += [(int(text[start + t]), int(text[start + t - 1])) for t in range(len(ids)) if mask[t]]
    return expected


@pytest.mark.parametrize("shared", [True, False])
def test_each_counted_token_is_predicted_from_the_token_before_it_in_its_own_text(shared: bool) -> None:
    groups = [*build_groups(0, k=3), build_group(np.random.default_rng(1), prompt=4, completions=(5, 6), masked=2)]
    batch = lay_out(groups, shared=shared, pad_id=0)
    before = batch.input_ids.flatten()[batch.predictors]
    assert list(zip(batch.targets.tolist(), before.tolist(), strict=True)) == _expected_counted(groups)


def test_positions_restart_after_the_prompt_for_each_completion() -> None:
    group = build_group(np.random.default_rng(0), prompt=3, completions=(2, 4))
    batch = lay_out([group], shared=True, pad_id=0)
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 6]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2, 2]]


def test_short_rows_are_padded_and_padding_is_marked() -> None:
    generator = np.random.default_rng(0)
    groups = [
        build_group(generator, prompt=2, completions=(1, 1)),
        build_group(generator, prompt=3, completions=(2, 2)),
    ]
    batch = lay_out(groups, shared=True, pad_id=96)
    assert batch.input_ids[0, 4:].tolist() == [96] * 3
    assert (batch.segment_ids == PADDING).sum() == 3


def test_an_empty_prompt_leaves_the_first_token_uncounted() -> None:
    group = build_group(np.random.default_rng(0), prompt=0, completions=(3, 2))
    for shared in (True, False):
        batch = lay_out([group], shared=shared, pad_id=0)
        assert batch.num_counted.tolist() == [2, 1]
        assert (batch.predictors >= 0).all()


def test_counts_are_those_of_trl_and_of_the_rows() -> None:
    group = build_group(np.random.default_rng(0), prompt=10, completions=(3, 4))
    shared, separate = (lay_out([group], shared=shared, pad_id=0) for shared in (True, False))
    assert (shared.num_tokens, shared.num_computed_tokens) == (27, 17)
    assert (separate.num_tokens, separate.num_computed_tokens) == (27, 27)


def test_row_shape_is_the_shape_that_the_layout_has() -> None:
    for seed in range(5):
        group = build_groups(seed, count=1, k=3)[0]
        for shared in (True, False):
            shape = row_shape(len(group.prompt_ids), [len(ids) for ids in group.completion_ids], shared=shared)
            assert (shape.num_rows, shape.length) == tuple(lay_out([group], shared=shared, pad_id=0).input_ids.shape)


def test_margins_are_there_only_where_a_row_has_one() -> None:
    generator = np.random.default_rng(0)
    plain = build_group(generator, prompt=2, completions=(1, 1))
    wide = build_group(generator, prompt=2, completions=(1, 1), margin=0.5, weight=2.0)
    assert lay_out([plain], shared=True, pad_id=0).margin is None
    batch = lay_out([plain, wide], shared=True, pad_id=0)
    assert torch.equal(batch.margin, torch.tensor([0.0, 0.5])) if batch.margin is not None else False
    assert batch.weight.tolist() == [1.0, 2.0]
