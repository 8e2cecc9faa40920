"""What the device room says and does on an NPU: the line of choice, its settings, memory, random state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.device.memory import is_out_of_memory, peak_memory_bytes, total_memory_bytes
from burnish.device.pick import Device, pick_device
from burnish.device.precision import choose_precision
from burnish.device.rng import device_rng_state, forked_rng, seed_everything, set_device_rng_state
from jobs import job, write_pairs
from npu.simulator.hook import is_simulated
from runs import run_burnish


@pytest.fixture(scope="module")
def device() -> Device:
    return pick_device()


def test_the_npu_is_chosen_first_and_described(device: Device) -> None:
    assert device.kind == "npu"
    assert device.torch_device.index == 0
    assert device.reason.startswith("npu:0, Ascend")
    for part in (" GiB", "CANN ", "torch_npu 2.", "(the first that works)"):
        assert part in device.reason, device.reason
    assert choose_precision("auto", device).name == "bf16"


@pytest.mark.skipif(not is_simulated(), reason="the simulated device has 64 GiB")
def test_memory_is_counted_and_its_end_recognised(device: Device) -> None:
    assert total_memory_bytes(device) == 64 * 2**30
    block = torch.ones(2**20, device=device.torch_device)
    assert peak_memory_bytes(device) >= block.numel() * 4
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**36, dtype=torch.uint8, device=device.torch_device)
    assert "NPU out of memory" in str(caught.value)
    assert is_out_of_memory(caught.value)


def test_a_program_that_has_set_how_operators_compile_is_not_overruled(device: Device) -> None:
    npu: Any = torch.npu  # pyright: ignore[reportAttributeAccessIssue]
    assert npu.is_jit_compile_false()
    try:
        npu.set_compile_mode(jit_compile=True)
        kept = pick_device()
        assert not npu.is_jit_compile_false()
        assert kept.settings.startswith("npu: operators are compiled for each shape, as this program has set it")
        assert pick_device(jit_compile=True).settings.startswith("npu: operators are compiled for each shape")
        assert "jit_compile off" in pick_device().settings, "an earlier run's own setting is no wish of the program's"
        assert npu.is_jit_compile_false()
    finally:
        npu.set_compile_mode(jit_compile=False)


def test_the_random_state_of_the_device_is_kept(device: Device) -> None:
    seed_everything(5)
    state = device_rng_state(device)
    assert state is not None
    with forked_rng(device):
        inside = torch.rand(8, device=device.torch_device).cpu()
    outside = torch.rand(8, device=device.torch_device).cpu()
    assert torch.equal(inside, outside), "the block left the state as it was"
    set_device_rng_state(device, state)
    assert torch.equal(torch.rand(8, device=device.torch_device).cpu(), outside)


def test_steps_are_recorded_with_the_vendors_profiler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the simulated card the vendor's profiler runs and writes its folder; what it records needs a real one."""
    data = write_pairs(tmp_path / "pairs.jsonl", count=16)
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 4, "--profile", 1, "--global_batch_size", 4))
    folder = tmp_path / "run" / "profile"
    assert f"profile: 1 steps in {folder}" in capsys.readouterr().err.splitlines()
    assert list(folder.rglob("profiler_info*.json"))
