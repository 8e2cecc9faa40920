"""Weights, gradients and optimizer state spread over ranks: FSDP2 (torch.distributed.fsdp.fully_shard).

Each rank keeps one slice of every parameter, along its first axis. A layer's slices are gathered before it computes and
freed after it; its gradients are summed into slices as the backward pass leaves it. Every forward and backward pass is
therefore made by all ranks together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from burnish.device.pick import Device
from burnish.device.ranks import Ranks


def shard_module(
    root: nn.Module,
    layers: Iterable[nn.Module],
    *,
    device: Device,
    ranks: Ranks,
    compute_dtype: torch.dtype = torch.float32,
) -> None:
    """Spread a module over all ranks, in place; what was on the CPU goes to the device slice by slice.

    Slices stay as they are stored. Layers are gathered in the compute dtype: half the traffic, and a layer that
    autocast need not cast, whose copies would outlive it. What is outside of the layers is gathered as stored, so that
    the residual stream is as precise as without slices. Gradients are summed in float32.

    Args:
        root: its forward is what gathers everything outside of the layers (embeddings, last norm, head).
        layers: gathered one at a time.
        device: of this process.
        ranks: connected.
        compute_dtype: what autocast computes in.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.kind, (ranks.size,))
    is_half = compute_dtype != torch.float32
    policy = MixedPrecisionPolicy(
        param_dtype=compute_dtype if is_half else None,
        reduce_dtype=torch.float32 if is_half else None,
        cast_forward_inputs=False,
    )
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
    # The root too: what a model's parameters are between two passes is then always slices.
    spread: Any = fully_shard(root, mesh=mesh, reshard_after_forward=True)
    # What gradients are summed in follows the weights that are trainable when FSDP2 first looks: now, not in a forward
    # pass with the adapter switched off.
    spread._get_fsdp_state()._lazy_init()
    if hasattr(root, "generate"):
        register_fsdp_forward_method(root, "generate")


def is_sharded(module: nn.Module) -> bool:
    """Whether a module's parameters are spread over ranks."""
    return any(_is_spread(parameter) for parameter in module.parameters())


def local_part(tensor: Tensor) -> Tensor:
    """This rank's slice of a tensor that is spread over ranks, sharing its memory; any other tensor is itself."""
    spread: Any = tensor.detach()
    return spread.to_local() if _is_spread(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which all ranks hold slices, put together on each of them; all ranks call it."""
    spread: Any = tensor.detach()
    return spread.full_tensor() if _is_spread(tensor) else tensor


def spread_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as slices, cut as a parameter of its shape is; a copy, on the parameter's device."""
    if not _is_spread(parameter):
        return value.clone()
    from torch.distributed.tensor import DTensor

    given: Any = parameter
    part = own_slice(value, parameter).to(given.to_local().device, copy=True)
    return DTensor.from_local(
        part, given.device_mesh, given.placements, run_check=False, shape=value.shape, stride=value.stride()
    )


def own_slice(value: Tensor, parameter: Tensor) -> Tensor:
    """What this rank holds of a whole tensor where a parameter of its shape is spread; the last ranks may hold none."""
    if not _is_spread(parameter):
        return value
    spread: Any = parameter
    parts = torch.chunk(value, spread.device_mesh.size(), dim=0)
    rank = spread.device_mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else value[:0]


def whole_weights(model: nn.Module, *, trainable_only: bool) -> dict[str, Tensor]:
    """A sharded model's weights by name, on the CPU; all ranks call it, and shared weights stay shared.

    Args:
        model: spread over ranks.
        trainable_only: leave out frozen weights (an adapter's base) and buffers.
    """
    gathered: dict[int, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad or not trainable_only:
            if id(parameter) not in gathered:
                gathered[id(parameter)] = whole(parameter).cpu()
            weights[name] = gathered[id(parameter)]
    if trainable_only:
        return weights
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in weights}
    return weights | {name: tensor.cpu() for name, tensor in buffers.items()}


def _is_spread(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
