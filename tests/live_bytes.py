"""Bytes that are alive while operators run, counted storage by storage: what an allocator would have had to hold."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The most bytes of storages that were alive after any operator.

    Works on real and on fake tensors; those of the meta device hold nothing. A storage counts once, however many
    tensors look at it, and counts what it holds at the moment: FSDP2 empties and fills the storages of gathered
    weights.
    """

    def __init__(self, tensors: Iterable[torch.Tensor], *, resizes: bool = False) -> None:
        """Begin with what is there already.

        Args:
            tensors: weights, buffers and optimizer state.
            resizes: ask every storage for its size after every operator; without, sizes are taken as they began.
        """
        super().__init__()
        self.peak = 0
        self._resizes = resizes
        self._sum = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in tensors:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._see(value)
        self.peak = max(self.peak, self._measure() if self._resizes else self._sum)
        return result

    def _measure(self) -> int:
        storages = [reference() for reference in self._alive.values()]
        return sum(storage.nbytes() for storage in storages if storage is not None)

    def _see(self, tensor: Any) -> None:
        if tensor.is_meta:
            return
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._sum += size

        def forget(_: Any) -> None:
            if self._alive.pop(key, None) is not None:
                self._sum -= size

        self._alive[key] = weakref.ref(storage, forget)
