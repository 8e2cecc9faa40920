"""Attention over packed tree rows without a mask over all of them: each completion meets its prompt and itself.

A packed micro-batch is one row, `[prompt 1 | completion 1.1 | completion 1.2 | prompt 2 | …]`, without padding.
Attention runs group by group: the prompt's queries over the prompt (causal), each completion's queries over prompt and
own keys. That is the work that the tree has, where a dense mask pays for the square of the longest row and turns into
numbers anew in every layer. Groups too small to be worth calls of their own share one, under a mask of at most a few
hundred tokens.

The attention is registered with transformers' `AttentionInterface`; without packed rows it is transformers' sdpa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from burnish.batching.layout import TreeShape

NAME = "burnish_tree"
"""What the model's configuration calls this attention."""
SMALL_GROUP_TOKENS = 128
"""Groups up to this length are gathered into one call, …"""
GATHERED_TOKENS = 192
"""… up to so many tokens: beyond, what the mask hides costs more than calls do."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive groups whose attention is computed together."""

    groups: tuple[TreeShape, ...]

    @property
    def segments(self) -> list[int]:
        """Lengths of the pieces that queries, keys and values are split into."""
        first, *others = self.groups
        return [sum(group.num_tokens for group in self.groups)] if others else [first.prompt, *first.completions]


@dataclass(slots=True)
class TreeRows:
    """The groups of a packed micro-batch, and the masks that its layers share."""

    blocks: tuple[Block, ...]
    segments: list[int]
    _masks: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, trees: Sequence[TreeShape]) -> TreeRows:
        """Arrange groups, in the order of the packed row, into blocks."""
        blocks = arrange_blocks(trees)
        return cls(blocks, [length for block in blocks for length in block.segments])

    def mask(self, block: Block, completion: int | None, like: Tensor) -> Tensor:
        """The additive mask of a whole block, or of one completion over prompt and itself; made once a micro-batch."""
        shape = block.groups if completion is None else (block.groups[0].prompt, completion)
        key = (shape, like.dtype)
        if key not in self._masks:
            build = _groups_mask if completion is None else _completion_mask
            visible = build(shape, like.device)  # pyright: ignore[reportArgumentType]
            mask = torch.zeros(visible.shape, dtype=like.dtype, device=like.device)
            self._masks[key] = mask.masked_fill_(~visible, -torch.inf)
        return self._masks[key]


def arrange_blocks(trees: Sequence[TreeShape]) -> tuple[Block, ...]:
    """A block for each group, but neighbours that are small share one."""
    blocks: list[Block] = []
    small: list[TreeShape] = []
    for tree in trees:
        fits = sum(group.num_tokens for group in small) + tree.num_tokens <= GATHERED_TOKENS
        if small and not (fits and tree.num_tokens <= SMALL_GROUP_TOKENS):
            blocks.append(Block(tuple(small)))
            small = []
        if tree.num_tokens <= SMALL_GROUP_TOKENS:
            small.append(tree)
        else:
            blocks.append(Block((tree,)))
    return tuple(blocks) if not small else (*blocks, Block(tuple(small)))


def _completion_mask(lengths: tuple[int, int], device: torch.device) -> Tensor:
    """(completion, prompt + completion): all of the prompt, and of itself what is not later."""
    prompt, completion = lengths
    return torch.ones(completion, prompt + completion, dtype=torch.bool, device=device).tril_(prompt)


def _groups_mask(groups: Sequence[TreeShape], device: torch.device) -> Tensor:
    """(tokens, tokens) of several groups in a row."""
    group_of: list[int] = []
    completion_of: list[int] = []
    for number, group in enumerate(groups):
        group_of += [number] * group.num_tokens
        completion_of += [0] * group.prompt
        for i, length in enumerate(group.completions, start=1):
            completion_of += [i] * length
    group, completion = (torch.tensor(values, device=device) for values in (group_of, completion_of))
    related = (completion[:, None] == completion[None, :]) | (completion[None, :] == 0)
    return ((group[:, None] == group[None, :]) & related).tril_()


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    tree_rows: TreeRows | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by transformers' interface; packed rows come as `tree_rows`, through the model's keyword arguments.

    Args:
        module: the attention layer.
        query: (1, heads, tokens, head size).
        key: (1, key heads, tokens, head size).
        value: as key.
        attention_mask: ignored with packed rows, which say what sees what.
        dropout: of attention weights.
        scaling: of the scores.
        tree_rows: the packed row's groups; None leaves the call to sdpa.
        kwargs: for sdpa.

    Returns:
        (1, tokens, heads, head size), and no weights.
    """
    if tree_rows is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    tensors = one_dtype(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        return _attend_packed(tree_rows, tensors, scaling, dropout), None


def _attend_packed(tree_rows: TreeRows, tensors: tuple[Tensor, ...], scaling: float | None, dropout: float) -> Tensor:
    query, key, _ = tensors
    parts = [tensor.split(tree_rows.segments, dim=2) for tensor in tensors]
    options = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1], "dropout_p": dropout}
    outputs: list[Tensor] = []
    position = 0
    for block in tree_rows.blocks:
        count = len(block.segments)
        queries, keys, values = (part[position : position + count] for part in parts)
        outputs += _attend_block(tree_rows, block, queries, keys, values, options)
        position += count
    return torch.cat([output.transpose(1, 2) for output in outputs], dim=1)


def _attend_block(
    tree_rows: TreeRows,
    block: Block,
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    options: dict[str, Any],
) -> list[Tensor]:
    """Outputs of a block's segments, each (1, heads, tokens, head size)."""
    first, *others = block.groups
    if others:
        mask = tree_rows.mask(block, None, queries[0])
        return [scaled_dot_product_attention(queries[0], keys[0], values[0], attn_mask=mask, **options)]
    outputs: list[Tensor] = []
    prompt = first.prompt
    if prompt:
        outputs.append(scaled_dot_product_attention(queries[0], keys[0], values[0], is_causal=True, **options))
    for query, key, value in zip(queries[1:], keys[1:], values[1:], strict=True):
        if query.shape[2] == 0:
            continue
        if prompt == 0:
            outputs.append(scaled_dot_product_attention(query, key, value, is_causal=True, **options))
            continue
        mask = tree_rows.mask(block, query.shape[2], query)
        seen_keys, seen_values = torch.cat([keys[0], key], dim=2), torch.cat([values[0], value], dim=2)
        outputs.append(scaled_dot_product_attention(query, seen_keys, seen_values, attn_mask=mask, **options))
    return outputs


def one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, cast once here and not in every call; on the CPU to float32.

    torch's flash kernel on the CPU takes twice as long in bfloat16 as in float32 for the gradient, at these lengths.
    """
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.float32 if kind == "cpu" else torch.get_autocast_dtype(kind)
    return tuple(tensor.to(dtype) for tensor in tensors)


@lru_cache(maxsize=1)
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def use_tree_attention(model: nn.Module) -> None:
    """Let a model that computes with sdpa take packed rows as well; all else that it computes stays as it is."""
    config: Any = model.config
    if config._attn_implementation != NAME:
        _register()
        config._attn_implementation = NAME
