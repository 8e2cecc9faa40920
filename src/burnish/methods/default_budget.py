"""How many tokens a micro-batch has where no setting says it: by formula, so that every rank and every run agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from burnish.console import notice
from burnish.device.memory import total_memory_bytes
from burnish.device.pick import Device
from burnish.device.ranks import Ranks
from burnish.engine.plan import format_bytes
from burnish.methods.reference import reference_dtype
from burnish.models.fit import USABLE, largest_budget, most_tokens
from burnish.models.sharing import share_memory

CPU_TOKENS = 1024
"""Tokens of a micro-batch on the CPU: its matrix products gain nothing from more, and its memory would."""


@dataclass(frozen=True, slots=True)
class RunShapes:
    """What the memory of a run depends on besides the tokens of a micro-batch."""

    policy: nn.Module
    row_tokens: int
    """Length of the longest row."""
    compute_dtype: torch.dtype
    has_frozen_reference: bool


def default_max_tokens(config: Any, device: Device, shapes: RunShapes, ranks: Ranks) -> int:
    """Token budget of a micro-batch: a constant on the CPU; on an accelerator what its memory has room for.

    Room is what weights, gradients and optimizer leave of nine tenths of the device (models.estimate). Where not even
    the longest row fits by that, rows are computed one by one, and a line says so. The rank with the least decides.
    """
    if not device.is_accelerator:
        return CPU_TOKENS

    def total_of(tokens: int) -> int:
        return share_memory(
            shapes.policy,
            devices=ranks.size,
            parallel=config.parallel,
            tokens=tokens,
            row_tokens=min(shapes.row_tokens, tokens),
            compute_dtype=shapes.compute_dtype,
            has_frozen_reference=shapes.has_frozen_reference,
            holds_activations=not config.activation_offloading,
            reference_dtype=reference_dtype(config),
        ).total

    memory = total_memory_bytes(device)
    found = largest_budget(total_of, int(memory * USABLE), shapes.row_tokens, most_tokens(memory))
    if found is None:
        notice(
            f"memory: about {format_bytes(total_of(shapes.row_tokens))} are needed even row by row, and the device has "
            f"{format_bytes(memory)}; --dry_run --devices {ranks.size} --device_memory {memory >> 30}GiB looks for "
            "settings that fit"
        )
    return min(ranks.gather(found or shapes.row_tokens))
