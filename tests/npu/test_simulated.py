"""Runs every file of on_device/ on the simulated NPU, each in a process of its own (about 4 minutes in all)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from npu.simulator.machine import SimulatedMachine

pytestmark = pytest.mark.slow
FILES = sorted((Path(__file__).parent / "on_device").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_simulated_npu(machine: SimulatedMachine, file: Path) -> None:
    words = ("-q", "-p", "no:cacheprovider", "-W", "default", "--color=no", file)
    done = machine.python("-m", "pytest", *words, check=False)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-2000:]}"
    assert re.search(r"\d+ passed", done.stdout), done.stdout
