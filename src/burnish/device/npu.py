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
_COMPILE_OPTION = "jitCompile"


class _State:
    compiling: bool | None = None
    """What this module has last set; None before."""


def npu_module() -> Any:
    """torch.npu, which the vendor's package adds."""
    return torch.npu  # pyright: ignore[reportAttributeAccessIssue]


def claim_npu(index: int) -> str:
    """Take a device for this process, and describe it.

    Args:
        index: of the device, among those that the process sees.

    Returns:
        Chip, memory, and the versions under it: `Ascend910B2, 64 GiB, driver 25.2.0, CANN 9.1.0, torch_npu 2.13.0`.
    """
    npu = npu_module()
    npu.set_device(index)
    parts = [str(npu.get_device_name(index)), f"{npu.mem_get_info(index)[1] / 2**30:.0f} GiB"]
    if _DRIVER_FILE.is_file():
        parts.append(f"driver {version_of(_DRIVER_FILE.read_text(errors='replace'))}")
    home = os.environ.get("ASCEND_HOME_PATH")
    parts.append(f"CANN {(cann_version(Path(home)) if home else '') or 'of unknown version'}")
    import torch_npu  # pyright: ignore[reportMissingImports]

    return ", ".join([*parts, f"torch_npu {torch_npu.__version__}"])


def set_compiling(*, jit_compile: bool) -> str:
    """Set how operators are compiled, where the program has not set that itself, and say all that is set.

    Args:
        jit_compile: compile operators for each new shape, instead of taking the prebuilt ones; slow to start. False
            leaves what `torch.npu.set_compile_mode` was told before.

    Returns:
        One line on what was set for the NPU, and how to say otherwise.
    """
    theirs = None if jit_compile else _set_by_the_program()
    if theirs is None:
        npu_module().set_compile_mode(jit_compile=jit_compile)
        _State.compiling = jit_compile
    made = made_settings()
    compiling = (
        "operators are compiled for each shape" if jit_compile or theirs else "prebuilt operators (jit_compile off)"
    )
    whose = "" if theirs is None else ", as this program has set it"
    variables = f", {', '.join(made)}" if made else ""
    cure = "; your own values of these variables win" if made else ""
    return f"npu: {compiling}{whose}{variables}{cure}"


def _set_by_the_program() -> bool | None:
    """What was set by somebody else in this process; None where nobody has, or where the package does not tell."""
    import torch_npu  # pyright: ignore[reportMissingImports]

    read_option = getattr(getattr(torch_npu, "_C", None), "_npu_getOption", None)
    value = read_option(_COMPILE_OPTION) if read_option else None
    if not value:
        return None
    compiles = value in (b"enable", "enable")
    return None if compiles == _State.compiling else compiles
