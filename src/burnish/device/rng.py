"""Random state of the device, beside that of Python, NumPy and torch's CPU generator."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from burnish.device.pick import Device


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def use_deterministic_kernels() -> None:
    """Let torch use reproducible kernels only, for this process; one that has none raises instead of drifting."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def device_rng_state(device: Device) -> torch.Tensor | None:
    """State of the accelerator's generator as bytes on the CPU; None on the CPU, whose generator torch keeps."""
    return _module(device).get_rng_state(device.torch_device).cpu() if device.is_accelerator else None


def set_device_rng_state(device: Device, state: torch.Tensor) -> None:
    """Restore what device_rng_state gave."""
    if device.is_accelerator:
        _module(device).set_rng_state(state, device.torch_device)


@dataclass(frozen=True, slots=True, eq=False)
class RngMark:
    """Where all generators stand."""

    device: Device
    python: Any
    numpy: Any
    torch_states: tuple[torch.Tensor, ...]
    """Of the CPU's generator, and of the accelerator's where there is one."""

    @classmethod
    def take(cls, device: Device) -> RngMark:
        """Remember where they stand now."""
        states = (torch.get_rng_state(), device_rng_state(device))
        return cls(device, random.getstate(), np.random.get_state(), tuple(one for one in states if one is not None))

    def put_back(self) -> None:
        """Put them back there, as often as it is called."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch_states[0])
        for state in self.torch_states[1:]:
            set_device_rng_state(self.device, state)

    def stands_as(self, other: RngMark) -> bool:
        """Whether all generators stood where they did for another mark of the same device."""
        (name, keys, *rest), (other_name, other_keys, *other_rest) = self.numpy, other.numpy
        same_numpy = (name, *rest) == (other_name, *other_rest) and np.array_equal(keys, other_keys)
        pairs = zip(self.torch_states, other.torch_states, strict=True)
        return self.python == other.python and same_numpy and all(torch.equal(*pair) for pair in pairs)


def mark_rng(device: Device) -> Callable[[], None]:
    """Remember where all generators stand; what it returns puts them back there, as often as it is called."""
    return RngMark.take(device).put_back


@contextmanager
def forked_rng(device: Device) -> Iterator[None]:
    """Let the block draw random numbers without moving the run's own generators."""
    put_back = mark_rng(device)
    try:
        yield
    finally:
        put_back()


def _module(device: Device) -> Any:
    return getattr(torch, device.kind)
