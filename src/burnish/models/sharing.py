"""How much memory one of several devices needs: an estimate for one device, shared out by DDP or FSDP2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from torch import nn

from burnish.models.estimate import MemoryEstimate, count_parameters, estimate_memory

Parallel = Literal["ddp", "fsdp"]
_FLOAT32 = 4


def share_memory(model: nn.Module, *, devices: int, parallel: Parallel, **step: Any) -> MemoryEstimate:
    """Estimate the memory of each of several devices, in bytes.

    DDP holds everything on each device, and gradients once more in the buckets that it sends.

    FSDP2 (a unit for each decoder layer and one for the rest; weights gathered in the compute dtype, gradients summed
    in float32) holds of weights, gradients, moments and reference the devices' share. Besides, at the peak, where the
    backward pass begins: the rest of the model gathered, two layers (one used, one on its way), the head's gradient,
    and one layer's in float32 on its way out.

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
    compute = step["compute_dtype"].itemsize if "compute_dtype" in step else _FLOAT32
    gathered = (rest + 2 * each) * compute
    if counts.trainable == counts.total:
        gathered += counts.head * compute + each * _FLOAT32
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
