"""Between device tensors and the host: a CPU tensor over the same bytes, and a device tensor with given values."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


def is_on_device(value: Any) -> bool:
    """Whether a value is a tensor on the simulated device."""
    return isinstance(value, Tensor) and value.device.type == "npu"


def host_view(tensor: Tensor) -> Tensor:
    """The CPU tensor over a device tensor's own bytes, with its sizes and strides; no autograd."""
    storage = tensor.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty(tensor.size(), dtype=tensor.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    raw = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    view = torch.empty(0, dtype=tensor.dtype).set_(raw, tensor.storage_offset(), tensor.size(), tensor.stride())
    return view.conj() if tensor.is_conj() else view


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A new device tensor with a CPU tensor's values, sizes and strides."""
    made = torch.empty_strided(values.size(), values.stride(), dtype=values.dtype, device=device)
    if values.numel():
        host_view(made).copy_(values)
    return made


def host_views(values: Any) -> Any:
    """The same structure with each device tensor replaced by its host view, and the others detached."""
    return tree_map_only(Tensor, lambda t: host_view(t) if is_on_device(t) else t.detach(), values)


def to_devices(values: Any, device: torch.device) -> Any:
    """The same structure with each CPU tensor brought to the device."""
    return tree_map_only(Tensor, lambda t: to_device(t, device), values)
