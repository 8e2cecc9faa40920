"""Which AdamW kernel a device has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from burnish.device.pick import DeviceKind
from burnish.device.precision import PrecisionName


def build_adamw(
    parameter_groups: Iterable[dict[str, Any]], *, kind: DeviceKind, precision: PrecisionName, **settings: Any
) -> torch.optim.AdamW:
    """One fused kernel a parameter, which the CPU, CUDA and NPU builds all have; never the foreach variant.

    Under fp16 a gradient scaler hands its scale to the fused kernel, and the NPU's takes none: there it is not fused.

    torch's own AdamW on every device: vendor variants that keep a combined gradient buffer go on using the first
    step's gradients once `zero_grad` has set them to None. The learning rate stays a float: the kernel that takes a
    tensor is not there on an NPU.
    """
    fused = not (kind == "npu" and precision == "fp16")
    return torch.optim.AdamW(parameter_groups, fused=fused, foreach=False, **settings)
