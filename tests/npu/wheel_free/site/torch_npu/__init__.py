"""A torch_npu of pure Python: a device `npu` with real values and without the vendor's wheel."""

from __future__ import annotations

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from npu.wheel_free.card import NpuModule
from npu.wheel_free.operators import (
    npu_cross_entropy_loss,
    npu_cross_entropy_loss_backward,
    npu_fusion_attention,
    npu_rms_norm,
    npu_rotary_mul,
    npu_swiglu,
)
from npu.wheel_free.tensor import install_tensors

__version__ = "0+wheel-free"
__all__ = [
    "npu",
    "npu_cross_entropy_loss",
    "npu_cross_entropy_loss_backward",
    "npu_fusion_attention",
    "npu_rms_norm",
    "npu_rotary_mul",
    "npu_swiglu",
]

npu = NpuModule()
_setup_privateuseone_for_python_backend("npu", npu)
install_tensors()
# A parameter that several layers share stays shared when its module goes to the device.
torch.__future__.set_swap_module_params_on_conversion(True)
