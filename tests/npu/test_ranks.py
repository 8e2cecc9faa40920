"""Two ranks on two simulated NPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from npu.simulator.machine import SimulatedMachine


@pytest.mark.slow
def test_two_ranks_exchange_over_hccl_and_stay_equal(machine: SimulatedMachine) -> None:
    """Sums, DDP and FSDP2, about 10 s."""
    done = machine.torchrun(2, Path(__file__).with_name("two_ranks.py"))
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} of 2 on hccl: as expected" for rank in (0, 1)]
