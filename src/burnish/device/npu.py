"""What training wants of an NPU, and what the run says about the one it has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from burnish.device.doctor.cann import cann_version
from burnish.device.doctor.hardware import version_of
from burnish.device.vendor import made_settings

_DRIVER_FILE = Path("/usr/local/Ascend/driver/version.info")


def npu_module() -> Any:
    """torch.npu, which the vendor's package adds."""
    return torch.npu  # pyright: ignore[reportAttributeAccessIssue]


def claim_npu(index: int, *, jit_compile: bool) -> str:
    """Take a device for this process, set how it compiles, and describe it.

    Args:
        index: of the device, among those that the process sees.
        jit_compile: compile operators for each new shape, instead of taking the prebuilt ones; slow to start.

    Returns:
        Chip, memory, and the versions under it: `Ascend910B2, 64 GiB, driver 25.2.0, CANN 9.1.0, torch_npu 2.13.0`.
    """
    npu = npu_module()
    npu.set_compile_mode(jit_compile=jit_compile)
    npu.set_device(index)
    parts = [str(npu.get_device_name(index)), f"{npu.mem_get_info(index)[1] / 2**30:.0f} GiB"]
    if _DRIVER_FILE.is_file():
        parts.append(f"driver {version_of(_DRIVER_FILE.read_text(errors='replace'))}")
    home = os.environ.get("ASCEND_HOME_PATH")
    parts.append(f"CANN {(cann_version(Path(home)) if home else '') or 'of unknown version'}")
    import torch_npu  # pyright: ignore[reportMissingImports]

    return ", ".join([*parts, f"torch_npu {torch_npu.__version__}"])


def settings_line(*, jit_compile: bool) -> str:
    """One line on what was set for the NPU, and how to say otherwise."""
    made = made_settings()
    compiling = "operators are compiled for each shape" if jit_compile else "prebuilt operators (jit_compile off)"
    variables = f", {', '.join(made)}" if made else ""
    cure = "; your own values of these variables win" if made else ""
    return f"npu: {compiling}{variables}{cure}"
