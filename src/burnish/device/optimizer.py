"""Which AdamW kernel a device has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def build_adamw(parameter_groups: Iterable[dict[str, Any]], **settings: Any) -> torch.optim.AdamW:
    """One fused kernel a parameter, which the CPU, CUDA and NPU builds all have; never the foreach variant.

    torch's own AdamW on every device: vendor variants that keep a combined gradient buffer go on using the first
    step's gradients once `zero_grad` has set them to None. The learning rate stays a float: the kernel that takes a
    tensor is not there on an NPU.
    """
    return torch.optim.AdamW(parameter_groups, fused=True, foreach=False, **settings)
