"""How much memory one of several devices needs: an estimate for one device, shared out by DDP, ZeRO or FSDP2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from burnish.device.zero import LARGEST_BUCKET
from burnish.models.estimate import MemoryEstimate, count_parameters, estimate_memory

Parallel = Literal["ddp", "fsdp"]
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Zero:
    """DeepSpeed's ZeRO, as far as memory is concerned."""

    stage: Literal[1, 2]
    bucket: int = LARGEST_BUCKET
    """Elements that are reduced at a time."""
    num_buckets: int = 1
    """Buffers of so many elements: two where one is sent while the next is filled, none where gradients lie apart."""

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Zero:
        """What `zero_optimization` of DeepSpeed's JSON says, read by read_zero."""
        given = {key: value for key, value in options.items() if value != "auto"}
        buffers = 1 + bool(given.get("overlap_comm", False))
        # Without a buffer, stage 2 still holds as many gradients until they are sent.
        is_apart = not given.get("contiguous_gradients", True) and given["stage"] == 1
        return cls(given["stage"], int(given.get("reduce_bucket_size", LARGEST_BUCKET)), 0 if is_apart else buffers)


def share_memory(
    model: nn.Module, *, devices: int, parallel: Parallel, zero: Zero | None = None, **step: Any
) -> MemoryEstimate:
    """Estimate the memory of each of several devices, in bytes.

    DDP holds everything on each device, and gradients once more in the buckets that it sends.

    ZeRO holds of the moments the devices' share, and as large a share of the trained weights once more, which is what
    its optimizer moves; of gradients, the whole (stage 1) or the share (stage 2), and the buckets in which they go out.

    FSDP2 (see device.sharding) holds of weights, gradients, moments and reference the devices' share. Besides, at the
    peak, where the backward pass begins: what is outside of the layers, gathered as stored; two layers in the compute
    dtype (one used, one on its way); in half precision the head's copy; and where they are trained, the head's
    gradient, and a layer's in float32 on its way out.

    Args:
        model: on any device, also the meta device.
        devices: that share; 1 needs no exchange.
        parallel: how they share.
        zero: DeepSpeed's ZeRO in place of DDP.
        step: of estimate_memory.
    """
    alone = estimate_memory(model, **step)
    if devices == 1:
        return alone
    if zero is not None:
        return _share_by_zero(alone, devices, zero)
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


def _share_by_zero(alone: MemoryEstimate, devices: int, zero: Zero) -> MemoryEstimate:
    trained = alone.gradients
    return replace(
        alone,
        gradients=trained if zero.stage == 1 else trained // devices,
        optimizer=(alone.optimizer + trained) // devices,
        gathered=zero.num_buckets * min(zero.bucket * _FLOAT32, trained),
    )


def _layer_elements(model: nn.Module) -> tuple[int, int]:
    """How many decoder layers a model has, and the elements of one."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    longest = max(lists, key=lambda layers: sum(parameter.numel() for parameter in layers.parameters()))
    return len(longest), sum(parameter.numel() for parameter in longest.parameters()) // len(longest)
