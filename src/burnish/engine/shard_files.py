"""Groups of tensors that several ranks have written as slices, put together again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Named = Mapping[str, "Tensor"]

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")
"""`<group>-<rank>-of-<ranks>`."""
_ALIKE = re.compile(r"group\..+|.+\.(step|no_state)")
"""Tensors of an optimizer that are the same on all ranks."""


def group_of_shard(name: str) -> str:
    """The group that a rank's slices belong to; any other name is itself."""
    found = SHARD.fullmatch(name)
    return found[1] if found else name


def join_shards(groups: Mapping[str, Named]) -> dict[str, dict[str, Tensor]]:
    """Put slices together along their first axis, in the order of ranks; a group that lacks a rank's is left out."""
    joined: dict[str, dict[str, Tensor]] = {}
    parts: dict[str, dict[int, Named]] = {}
    sizes: dict[str, int] = {}
    for name, named in groups.items():
        found = SHARD.fullmatch(name)
        if found is None:
            joined[name] = dict(named)
            continue
        parts.setdefault(found[1], {})[int(found[2])] = named
        sizes[found[1]] = int(found[3])
    for group, by_rank in parts.items():
        if len(by_rank) == sizes[group]:
            joined[group] = _join([by_rank[rank] for rank in range(sizes[group])], is_optimizer=group == "optimizer")
    return joined


def _join(shards: list[Named], *, is_optimizer: bool) -> dict[str, Tensor]:
    import torch

    return {
        name: first if is_optimizer and _ALIKE.fullmatch(name) else torch.cat([shard[name] for shard in shards])
        for name, first in shards[0].items()
    }
