"""Runs on_device/ on the simulated NPU: whole runs in one process, all other files in another (about 2 minutes)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from npu.simulator.machine import SimulatedMachine

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parent / "on_device"
WHOLE_RUNS = FOLDER / "test_runs.py"
PROCESSES = {"whole runs": [WHOLE_RUNS], "all others": sorted({*FOLDER.glob("test_*.py")} - {WHOLE_RUNS})}
"""Starting a process and importing torch takes as long as most of the files."""


@pytest.mark.parametrize("files", PROCESSES.values(), ids=PROCESSES)
def test_on_the_simulated_npu(machine: SimulatedMachine, files: list[Path]) -> None:
    words = ("-q", "-p", "no:cacheprovider", "-W", "default", "--color=no", "--durations=8", *files)
    done = machine.python("-m", "pytest", *words, check=False)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"\d+ passed", done.stdout), done.stdout
