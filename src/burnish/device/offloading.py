"""What a forward pass keeps for its backward pass, held in the host's memory until it is used.

Of a layer's activations the device then holds what it is computing with, for the time of two copies over the bus. What
weights hold anyway stays where it is, and so do copies of them in the compute dtype. Several operations that keep one
tensor (a norm's output, of which three projections keep the same) make one copy of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

LEAST_BYTES = 1024
"""Smaller tensors stay on the device: a copy costs more than its room."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Held:
    """A tensor on the host."""

    values: Tensor
    device: torch.device
    origin: StorageWeakRef
    """Of what was copied: once it is gone, another tensor may have its address."""


class HostMemory:
    """Takes what is kept within a block to the host, and brings it back as the backward pass asks for it."""

    def __init__(self, model: nn.Module) -> None:
        """Remember what weights look like.

        Args:
            model: whose forward passes run within the blocks.
        """
        # By shape, since a weight is kept as a view, as a copy in half precision, or as what its slices were put into.
        self._weights = {_shape(parameter) for parameter in model.parameters() if parameter.dim() > 1}
        self._held: weakref.WeakValueDictionary[tuple[Any, ...], _Held] = weakref.WeakValueDictionary()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """A block; it may end before the backward pass begins."""
        with torch.autograd.graph.saved_tensors_hooks(self._take, _bring_back):
            yield
        self._held.clear()

    def _take(self, tensor: Tensor) -> Tensor | _Held:
        size, storage = tensor.numel() * tensor.element_size(), tensor.untyped_storage()
        # What is expanded is larger than what lies in memory, and costs the device nothing.
        if not LEAST_BYTES <= size <= storage.nbytes() or _shape(tensor) in self._weights:
            return tensor
        place = (storage.data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        key = (*place, tensor._version)
        held = self._held.get(key)
        if held is None or held.origin.expired():
            values = torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type != "cpu")
            held = _Held(values.copy_(tensor), tensor.device, StorageWeakRef(storage))
            self._held[key] = held
        return held


def _bring_back(kept: Tensor | _Held) -> Tensor:
    return kept if isinstance(kept, Tensor) else kept.values.to(kept.device)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """The sizes, in whichever order: a weight may be kept transposed."""
    return tuple(sorted(tensor.shape))
