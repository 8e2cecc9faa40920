"""Memory figures, and what an out-of-memory error looks like."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from burnish.device.pick import Device

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's mallopt(3)."""
_KEPT_BLOCK_BYTES = 2**30
_OUT_OF_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "defaultcpuallocator", "bad_alloc")
_ONEDNN_TEXTS = {"could not create a primitive", "could not create a memory object", "could not execute a primitive"}
"""All that oneDNN says when the memory for its buffers cannot be had; what it has no kernel for it tells otherwise."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whichever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not isinstance(error, RuntimeError):
        return False
    words = str(error).strip().lower()
    return words in _ONEDNN_TEXTS or any(text in words for text in _OUT_OF_MEMORY_TEXTS)


def free_cached_memory(device: torch.device) -> None:
    """Give what the device's allocator holds without using it back to the device; on the CPU, to the system.

    Freed blocks of the C library's heap serve its own callers only, and not those that map memory themselves, such as
    a matrix library for the code that it compiles.
    """
    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def peak_memory_bytes(device: Device) -> int:
    """Most memory this process has held: allocated on an accelerator, resident on the CPU."""
    if device.is_accelerator:
        module: Any = getattr(torch, device.kind)
        return int(module.max_memory_allocated(device.torch_device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def total_memory_bytes(device: Device) -> int:
    """Memory of the device, or of the machine for the CPU."""
    if device.is_accelerator:
        module: Any = getattr(torch, device.kind)
        return int(module.mem_get_info(device.torch_device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory_bytes(device: Device) -> int:
    """Memory that could be taken now: free on an accelerator; on the CPU, of the machine and of the control group."""
    if device.is_accelerator:
        module: Any = getattr(torch, device.kind)
        return int(module.mem_get_info(device.torch_device)[0])
    return min(_host_available_bytes(), _control_group_available_bytes())


def _host_available_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: what no one uses at all, which is less
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _control_group_available_bytes(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container may still take; more than any machine has where nothing limits it."""
    try:
        most, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return sys.maxsize if most == "max" else max(0, int(most) - int(used))
    except (OSError, ValueError):
        return sys.maxsize


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks of up to 1 GiB for this process; say whether it took the request.

    Each micro-batch frees and asks for the same large tensors. By default glibc gives them back to the system, which
    clears every page anew: 5 % of a training step on the CPU. Only glibc knows the request; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
