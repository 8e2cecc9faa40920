"""Rewards of the completions of many rows, by a reward model."""

from __future__ import annotations

from typing import Any

import torch

from burnish.batching.layout import lay_out, row_shape
from burnish.batching.planner import plan_step
from burnish.data.followers import prepare_once
from burnish.data.prepare import data_cache_dir, prepare_groups
from burnish.data.rows import RowSource
from burnish.device.attention import check_flex_attention
from burnish.device.pick import pick_device
from burnish.device.ranks import join_ranks
from burnish.models.reward import RewardScorer, load_reward_model
from burnish.models.tokenizer import load_tokenizer


@torch.no_grad()
def score_groups(rows: RowSource, settings: Any, *, max_tokens: int) -> dict[int, list[float]]:
    """Score every usable row; several ranks share the work, and each gets all rewards.

    Args:
        rows: pairs or ranked lists.
        settings: of data and model.
        max_tokens: most tokens, padding included, computed at once.

    Returns:
        Rewards of each row's completions in its order (chosen first), by the row's number.
    """
    tokenizer: Any = load_tokenizer(settings, settings)
    ranks = join_ranks()
    options: dict[str, Any] = {"kind": "ranking", "cache_dir": data_cache_dir(settings)}
    groups = prepare_once(ranks, lambda: (prepare_groups(rows, tokenizer, settings, **options), {}))[0].groups
    picked = pick_device("auto")
    check_flex_attention(settings.attn_implementation, picked)
    ranks.connect(picked)
    device = picked.torch_device
    model = load_reward_model(settings, hub=settings.hub, pad_id=tokenizer.pad_token_id, needs_head=True)
    scorer = RewardScorer(model.to(device)).eval()
    shapes = [
        row_shape(len(group.prompt_ids), [len(ids) for ids in group.completion_ids], shared=False) for group in groups
    ]
    rewards: dict[int, list[float]] = {}
    # The micro-batches of one process, dealt out: a row's rewards do not depend on the number of ranks.
    for micro in plan_step(range(len(groups)), shapes, max_tokens).micro_batches[ranks.rank :: ranks.size]:
        members = [groups[index] for index in micro.groups]
        batch = lay_out(members, shared=False, pad_id=tokenizer.pad_token_id).to(device)
        values = iter(scorer(batch).given_rewards.tolist())
        for group in members:
            rewards[group.row] = [next(values) for _ in group.completion_ids]
    return {row: values for part in ranks.gather(rewards) for row, values in part.items()}
