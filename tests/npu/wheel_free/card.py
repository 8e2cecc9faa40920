"""The wheel-free card itself: its memory, its random numbers, and the module `torch.npu` that tells of them.

What the module answers, and the texts of what it refuses, are those of the vendor's package.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

GIB = 2**30
COUNT_VARIABLE, CHIP_VARIABLE, BYTES_VARIABLE = "SIMULATED_NPU_COUNT", "SIMULATED_NPU_CHIP", "SIMULATED_NPU_BYTES"
_WITHOUT_BFLOAT16 = "Ascend910PremiumA"


class Card:
    """One card for the whole process."""

    def __init__(self) -> None:
        self.index = 0
        self.total_bytes = int(os.environ.get(BYTES_VARIABLE, str(64 * GIB)))
        self.chip = os.environ.get(CHIP_VARIABLE, "Ascend910B2")
        self.count = int(os.environ.get(COUNT_VARIABLE, "1"))
        self.held_bytes = self.peak_bytes = 0
        self._holders: Counter[int] = Counter()
        self.random_state = torch.Generator().manual_seed(0).get_state()

    def ask_for(self, wanted: int) -> None:
        """Refuse bytes that the memory has no room for."""
        if self.held_bytes + wanted > self.total_bytes:
            raise RuntimeError(
                f"NPU out of memory. Tried to allocate {wanted / GIB:.2f} GiB (NPU {self.index}; "
                f"{self.total_bytes / GIB:.2f} GiB total capacity)"
            )

    def hold(self, host: Tensor) -> None:
        """Count the bytes under a tensor of the device once, whatever views there are, until all are gone."""
        storage = host.untyped_storage()
        place, num_bytes = storage.data_ptr(), storage.nbytes()
        if not self._holders[place]:
            self.ask_for(num_bytes)
            self.held_bytes += num_bytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        self._holders[place] += 1
        weakref.finalize(host, self._let_go, place, num_bytes)

    def _let_go(self, place: int, num_bytes: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            self.held_bytes -= num_bytes

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw random numbers from the card's own state, and leave the host's as it was."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.random_state)
        try:
            yield
        finally:
            self.random_state = torch.get_rng_state()
            torch.set_rng_state(before)


CARD = Card()


class NpuModule:
    """`torch.npu`."""

    def __init__(self) -> None:
        self.compile_modes: list[bool] = []
        """What set_compile_mode was told, in order."""
        self.num_emptied = 0

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return CARD.count > 0

    def device_count(self) -> int:
        return CARD.count

    def current_device(self) -> int:
        return CARD.index

    def set_device(self, device: Any) -> None:
        CARD.index = device if isinstance(device, int) else torch.device(device).index or 0

    def set_compile_mode(self, *, jit_compile: bool) -> None:
        self.compile_modes.append(jit_compile)

    def get_device_name(self, device: Any = None) -> str:
        return CARD.chip

    def is_bf16_supported(self) -> bool:
        return CARD.chip != _WITHOUT_BFLOAT16

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return CARD.total_bytes - CARD.held_bytes, CARD.total_bytes

    def memory_allocated(self, device: Any = None) -> int:
        return CARD.held_bytes

    def max_memory_allocated(self, device: Any = None) -> int:
        return CARD.peak_bytes

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        CARD.peak_bytes = CARD.held_bytes

    def empty_cache(self) -> None:
        self.num_emptied += 1

    def synchronize(self, device: Any = None) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        CARD.random_state = torch.Generator().manual_seed(seed).get_state()

    manual_seed = manual_seed_all

    def get_rng_state(self, device: Any = None) -> Tensor:
        return CARD.random_state.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        CARD.random_state = state.clone()
