"""Rewards of the completions of many rows, by a reward model."""

from __future__ import annotations

from typing import Any

import torch

from burnish.batching.layout import lay_out, row_shape
from burnish.batching.planner import plan_step
from burnish.data.prepare import data_cache_dir, prepare_groups
from burnish.data.rows import RowSource
from burnish.device.pick import pick_device
from burnish.models.reward import RewardScorer, load_reward_model
from burnish.models.tokenizer import load_tokenizer


@torch.no_grad()
def score_groups(rows: RowSource, settings: Any, *, max_tokens: int) -> dict[int, list[float]]:
    """Score every usable row.

    Args:
        rows: pairs or ranked lists.
        settings: of data and model.
        max_tokens: most tokens, padding included, computed at once.

    Returns:
        Rewards of each row's completions in its order (chosen first), by the row's number.
    """
    tokenizer: Any = load_tokenizer(settings, settings)
    groups = prepare_groups(rows, tokenizer, settings, kind="ranking", cache_dir=data_cache_dir(settings)).groups
    device = pick_device("auto").torch_device
    model = load_reward_model(settings, hub=settings.hub, pad_id=tokenizer.pad_token_id, needs_head=True)
    scorer = RewardScorer(model.to(device)).eval()
    shapes = [
        row_shape(len(group.prompt_ids), [len(ids) for ids in group.completion_ids], shared=False) for group in groups
    ]
    rewards: dict[int, list[float]] = {}
    for micro in plan_step(range(len(groups)), shapes, max_tokens).micro_batches:
        members = [groups[index] for index in micro.groups]
        batch = lay_out(members, shared=False, pad_id=tokenizer.pad_token_id).to(device)
        values = iter(scorer(batch).given_rewards.tolist())
        for group in members:
            rewards[group.row] = [next(values) for _ in group.completion_ids]
    return rewards
