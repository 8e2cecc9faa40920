"""Two ranks on two simulated NPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import job, movement_ratio, write_pairs
from npu.simulator.machine import SimulatedMachine, read_launches
from runs import read_metrics

pytestmark = pytest.mark.slow


def test_two_ranks_exchange_over_hccl_and_stay_equal(machine: SimulatedMachine) -> None:
    """Sums, DDP and FSDP2, about 10 s."""
    done = machine.torchrun(2, Path(__file__).with_name("two_ranks.py"))
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} of 2 on hccl: as expected" for rank in (0, 1)]


def test_two_npus_train_as_one(machine: SimulatedMachine, tmp_path: Path) -> None:
    """`burnish dpo` over hccl with DDP, uneven rows, float32, ten steps, about 40 s: losses and weights of one NPU."""
    data = write_pairs(tmp_path / "pairs.jsonl", count=51)
    flags = ("--global_batch_size", 7, "--max_steps", 10, "--precision", "fp32")
    log = tmp_path / "log"
    log.mkdir()
    traced = machine.with_variables(SIMULATED_NPU_LOG=str(log))
    done = traced.torchrun(2, "-m", "burnish", *job(data, tmp_path / "two", *flags))
    assert "device: npu:0, Ascend910B2" in done.stderr
    ranks, groups, steps = 2, 2, 10
    assert read_launches(log)["aten::_fused_adamw_"] == ranks * groups * steps
    machine.burnish(*job(data, tmp_path / "one", *flags))
    losses = [[r["loss"] for r in read_metrics(tmp_path / run) if r["kind"] == "train"] for run in ("one", "two")]
    assert len(losses[0]) == 10
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert movement_ratio(tmp_path / "one", tmp_path / "two") < 1e-4
