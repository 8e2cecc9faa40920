"""How much memory one of several devices needs: an estimate for one device, shared out by DDP or FSDP2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from burnish.models.estimate import MemoryEstimate, count_parameters, estimate_memory

Parallel = Literal["ddp", "fsdp"]
_FLOAT32 = 4


def share_memory(model: nn.Module, *, devices: int, parallel: Parallel, **step: Any) -> MemoryEstimate:
    """Estimate the memory of each of several devices, in bytes.

    DDP holds everything on each device, and gradients once more in the buckets that it sends.

    FSDP2 (see device.sharding) holds of weights, gradients, moments and reference the devices' share. Besides, at the
    peak, where the backward pass begins: what is outside of the layers, gathered as stored; two layers in the compute
    dtype (one used, one on its way); in half precision the head's copy; and where they are trained, the head's
    gradient, and a layer's in float32 on its way out.

    Args:
        model: on any device, also the meta device.
        devices: that share; 1 needs no exchange.
        parallel: how they share.
        step: of estimate_memory.
    """
    alone = estimate_memory(model, **step)
    if devices == 1:
        return alone
    if parallel == "ddp":
        return replace(alone, gathered=alone.gradients)
    counts = count_parameters(model)
    layers, each = _layer_elements(model)
    rest = counts.total - layers * each
    compute = step.get("compute_dtype", torch.float32)
    gathered = rest * _FLOAT32 + 2 * each * compute.itemsize
    if compute != torch.float32:
        gathered += counts.head * compute.itemsize
    if counts.trainable == counts.total:
        gathered += (counts.head + each) * _FLOAT32
    return replace(
        alone,
        weights=alone.weights // devices,
        copies=0,
        gradients=alone.gradients // devices,
        optimizer=alone.optimizer // devices,
        reference=alone.reference // devices,
        gathered=gathered,
    )


def _layer_elements(model: nn.Module) -> tuple[int, int]:
    """How many decoder layers a model has, and the elements of one."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    longest = max(lists, key=lambda layers: sum(parameter.numel() for parameter in layers.parameters()))
    return len(longest), sum(parameter.numel() for parameter in longest.parameters()) // len(longest)
