"""Where the tests of this folder run: on the simulated NPU, or on a real one.

Files in on_device/ run in a process that has an NPU. test_simulated.py starts that process; on a machine with a card,
`BURNISH_TEST_ON_NPU=1 python -m pytest tests/npu/on_device` runs the same files there. Those in wheel_free/on_device/
run in a process whose NPU is pure Python, which test_wheel_free.py starts.
"""

from __future__ import annotations

import os

import pytest

from npu.simulator.hook import is_simulated
from npu.simulator.machine import SimulatedMachine, simulate
from npu.simulator.wheel import CannotSimulate

HAS_NPU = is_simulated() or "BURNISH_TEST_ON_NPU" in os.environ
WHEEL_FREE_VARIABLE = "WHEEL_FREE_NPU"
collect_ignore = [] if HAS_NPU else ["on_device"]
collect_ignore += [] if WHEEL_FREE_VARIABLE in os.environ else ["wheel_free"]


@pytest.fixture(scope="session")
def machine() -> SimulatedMachine:
    """The simulated machine with the vendor's real wheel; tests that need it skip where it can't be had."""
    try:
        return simulate()
    except CannotSimulate as reason:
        pytest.skip(f"no simulated NPU: {reason}")
