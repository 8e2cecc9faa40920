"""Which operators a process sent to the simulated device: each is a kernel launch, or a few, on a real one."""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from pathlib import Path

LAUNCHED: Counter[str] = Counter()
"""Operator with overload (aten::mm, npu::npu_rms_norm) → how often it ran in this process."""


def write_at_exit() -> None:
    """Leave the counts in the folder $SIMULATED_NPU_LOG, one file a process, where it is set."""
    folder = os.environ.get("SIMULATED_NPU_LOG")
    if folder:
        atexit.register(lambda: Path(folder, f"{os.getpid()}.json").write_text(json.dumps(LAUNCHED)))
