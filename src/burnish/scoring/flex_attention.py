"""Flex attention over tree rows: torch's compiled kernel with a block mask, where a dense mask would be length squared.

A block mask names, for each block of queries, the blocks of keys that it sees some or all of; what it does not name is
not computed. The rule itself is evaluated inside the kernel, from segments and positions. transformers compiles the
kernel (not the model) at its first call; queries, keys and values reach it through transformers' own function, which
takes soft caps, scaling and grouped key heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad

from burnish.batching.layout import PADDING, PROMPT
from burnish.device.attention import BURNISH_FLEX, FLEX
from burnish.errors import ConfigError
from burnish.scoring.tree_attention import one_dtype

BLOCK = 128
"""Queries and keys of a block, torch's default."""
LEAST_HEAD_SIZE = 16
"""Torch's kernel takes no smaller heads (torch/_inductor/kernel/flex/flex_attention.py)."""
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def tree_block_mask(segment_ids: Tensor, position_ids: Tensor, *, window: int | None = None) -> BlockMask:
    """What `masks.tree_mask` says, as a block mask; never more than one block of queries is spread out.

    Args:
        segment_ids: (rows, length): -1 padding, 0 prompt, i ≥ 1 the i-th completion.
        position_ids: (rows, length).
        window: a query sees keys less than so many positions back; None sees all.

    Returns:
        A block mask of shape (rows, 1, length, length), for all heads.
    """
    rows, length = segment_ids.shape
    rule = _rule(segment_ids, position_ids, window)
    some, every = _classify_blocks(rule, rows, length, segment_ids.device)
    return BlockMask.from_kv_blocks(
        *_in_order(some & ~every), *_in_order(every), BLOCK_SIZE=BLOCK, mask_mod=rule, seq_lengths=(length, length)
    )


def _rule(segment_ids: Tensor, position_ids: Tensor, window: int | None) -> Rule:
    # A tensor, for the kernel cannot capture a number that varies, and would be compiled anew for each other.
    reach = position_ids.new_tensor(torch.iinfo(position_ids.dtype).max if window is None else window)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        queried, seen = segment_ids[row, query], segment_ids[row, key]
        related = ((seen == PROMPT) | (seen == queried)) & (queried != PADDING)
        near = position_ids[row, query] - position_ids[row, key] < reach
        return ((query >= key) & related & near) | (query == key)

    return sees


def _classify_blocks(rule: Rule, rows: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two of (rows, 1, blocks, blocks) bool: whether queries see some, and all, of a block of keys."""
    row = torch.arange(rows, device=device)[:, None, None]
    keys = torch.arange(length, device=device)
    blocks = -(-length // BLOCK)
    some: list[Tensor] = []
    every: list[Tensor] = []
    for queries in keys.split(BLOCK):
        visible = rule(row, row, queries[None, :, None], keys[None, None, :])
        padded = pad(visible, (0, blocks * BLOCK - length, 0, BLOCK - len(queries)))
        tiles = padded.view(rows, BLOCK, blocks, BLOCK)
        some.append(tiles.any(dim=3).any(dim=1))
        every.append(tiles.all(dim=3).all(dim=1))
    return torch.stack(some, dim=1)[:, None], torch.stack(every, dim=1)[:, None]


def _in_order(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys are chosen, and their numbers, the chosen ones first; both int32."""
    order = chosen.int().argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(dim=-1, dtype=torch.int32), order.int().contiguous()


def flex_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Hand on to transformers' flex attention in one dtype: under autocast, norms and rotations leave several.

    Args:
        module: the attention layer.
        query: (rows, heads, length, head size).
        key: (rows, key heads, length, head size).
        value: as key.
        attention_mask: a block mask.
        kwargs: scaling, softcap, dropout, as the model gives them.

    Returns:
        (rows, length, heads, head size), and the log-sum-exp where the device gives it.
    """
    from transformers.integrations.flex_attention import flex_attention_forward

    query, key, value = one_dtype(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        return flex_attention_forward(module, query, key, value, attention_mask, **kwargs)


@lru_cache(maxsize=1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flex_attention_mask

    AttentionInterface.register(BURNISH_FLEX, flex_attention)
    AttentionMaskInterface.register(BURNISH_FLEX, flex_attention_mask)


def use_flex_attention(model: nn.Module) -> None:
    """Let a model that was loaded with flex attention compute with this one; any other stays as it is.

    Raises:
        ConfigError: the model needs what the kernel does not do, with the cure.
    """
    config: Any = model.config
    if getattr(config, "_attn_implementation", None) != FLEX:
        return
    problem = flex_problem(model)
    if problem:
        raise ConfigError(f"--attn_implementation {FLEX}: {problem}; leave it out to compute with sdpa")
    _register()
    config._attn_implementation = BURNISH_FLEX


def flex_problem(model: nn.Module) -> str:
    """Why a model's attention cannot be computed by the kernel as it is meant; empty where it can."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if size < LEAST_HEAD_SIZE:
        return f"heads of {size} are too small for its kernel, which takes {LEAST_HEAD_SIZE} and more"
    if any(name.endswith(".sinks") for name, _ in model.named_parameters()):
        return "the model's attention sinks have not been checked with it"
    rates = (vars(module).get("attention_dropout") for module in model.modules())
    if any(isinstance(rate, float) and rate > 0 for rate in rates):
        return "its kernel has no dropout of attention weights, which the model asks for (or give --disable_dropout)"
    return ""
