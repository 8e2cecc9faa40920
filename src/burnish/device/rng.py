"""Random state of the device, beside that of Python, NumPy and torch's CPU generator."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def mark_rng(device: Device) -> Callable[[], None]:
    """Remember where all generators stand; what it returns puts them back there, as often as it is called."""
    python, numpy_state = random.getstate(), np.random.get_state()
    torch_state, device_state = torch.get_rng_state(), device_rng_state(device)

    def put_back() -> None:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if device_state is not None:
            set_device_rng_state(device, device_state)

    return put_back


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
