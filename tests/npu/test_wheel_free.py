"""Runs wheel_free/on_device/ in one process that has an NPU of pure Python, about 15 s; in every quick run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from npu.conftest import WHEEL_FREE_VARIABLE

HERE = Path(__file__).parent
PATHS = (HERE / "wheel_free" / "site", HERE.parents[1] / "src", HERE.parent)


def test_on_the_wheel_free_npu() -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "SIMULATED_"))}
    told = {"OMP_NUM_THREADS": "1", WHEEL_FREE_VARIABLE: "1", "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "--color=no", "--durations=5")
    done = subprocess.run(
        [sys.executable, *words, str(HERE / "wheel_free" / "on_device")],
        env={**kept, **told},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"\d+ passed", done.stdout), done.stdout
