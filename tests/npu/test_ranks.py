"""Two ranks on two simulated NPUs."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnish.device.fused.table import OPERATORS
from deepspeed_package import CannotInstall, deepspeed_environment
from jobs import job, movement_ratio, write_pairs
from launching import free_port
from npu.simulator.machine import SimulatedMachine, read_launches
from runs import read_metrics

pytestmark = pytest.mark.slow

STEPS, GROUPS, RANKS = 10, 2, 2
"""Optimizer steps, parameter groups of the optimizer, processes."""
NORMS_OF_A_PASS = 5
"""Of the tiny model: two in each of its two layers, and the last one."""


@pytest.fixture(scope="module")
def runs(machine: SimulatedMachine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job on one NPU, and on two by DDP and by FSDP2, about 60 s; uneven rows, ten steps."""
    folder = tmp_path_factory.mktemp("npus")
    data = write_pairs(folder / "pairs.jsonl", count=51)

    def words(name: str, *more: Any) -> list[str]:
        flags = ("--global_batch_size", 7, "--max_steps", STEPS, "--device", "npu", *more)
        return [str(word) for word in job(data, folder / name, *flags)]

    float32, half = ("--precision", "fp32"), ("--precision", "bf16")
    slices = ("--parallel", "fsdp", "--gradient_checkpointing")
    alone = {"one": words("one", *float32), "one-half": words("one-half", *half)}
    together = {
        "ddp": words("ddp", *float32),
        "fsdp": words("fsdp", *float32, *slices),
        "fsdp-half": words("fsdp-half", *half, *slices),
        "adapter": words("adapter", *half, *slices, "--use_peft", "--lora_r", 4),
    }
    program = Path(__file__).with_name("several_jobs.py")
    for count, jobs in ((1, alone), (RANKS, together)):
        file = folder / f"jobs-{count}.json"
        file.write_text(json.dumps(jobs))
        done = machine.torchrun(count, program, file)
        (folder / f"said-{count}").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def zero_runs(machine: SimulatedMachine, runs: Path) -> Path:
    """The job once more on two NPUs, by DeepSpeed's ZeRO 1 and 2, about 30 s."""
    try:
        added = deepspeed_environment()
    except CannotInstall as reason:
        pytest.skip(str(reason))
    paths = [Path(path) for path in added.get("PYTHONPATH", "").split(os.pathsep)[:1] if path]
    jobs: dict[str, list[str]] = {}
    for stage in (1, 2):
        options = runs / f"zero-{stage}.json"
        options.write_text(json.dumps({"zero_optimization": {"stage": stage}, "train_batch_size": "auto"}))
        flags = ("--global_batch_size", 7, "--max_steps", STEPS, "--device", "npu", "--precision", "fp32")
        words = job(runs / "pairs.jsonl", runs / f"zero-{stage}", *flags, "--deepspeed", options)
        jobs[f"zero-{stage}"] = [str(word) for word in words]
    file = runs / "jobs-zero.json"
    file.write_text(json.dumps(jobs))
    with_deepspeed = replace(machine, paths=(*machine.paths, *paths))
    with_deepspeed.torchrun(RANKS, Path(__file__).with_name("several_jobs.py"), file)
    return runs


def _losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run) if record["kind"] == "train"]


def test_two_ranks_exchange_over_hccl_and_stay_equal(machine: SimulatedMachine) -> None:
    """Sums, DDP and FSDP2, about 10 s."""
    done = machine.torchrun(RANKS, Path(__file__).with_name("two_ranks.py"))
    assert sorted(done.stdout.splitlines()) == [f"rank {rank} of 2 on hccl: as expected" for rank in (0, 1)]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_npus_train_as_one(name: str, runs: Path) -> None:
    """Losses and weights in float32, whichever way the work is shared."""
    assert "device: npu:0, Ascend910B2" in (runs / "said-2").read_text()
    assert len(_losses(runs / "one")) == STEPS
    assert _losses(runs / name) == pytest.approx(_losses(runs / "one"), abs=1e-5)
    assert movement_ratio(runs / "one", runs / name) < 1e-4


@pytest.mark.parametrize("stage", [1, 2])
def test_two_npus_with_zero_train_as_one(stage: int, zero_runs: Path) -> None:
    """By the NPU's own AdamW over slices; gradients are summed over hccl."""
    run = zero_runs / f"zero-{stage}"
    assert _losses(run) == pytest.approx(_losses(zero_runs / "one"), abs=1e-5)
    assert movement_ratio(zero_runs / "one", run) < 1e-4
    launched = read_launches(zero_runs / "launched" / f"zero-{stage}")
    assert launched["aten::_fused_adamw_"] == RANKS * GROUPS * STEPS


def test_two_machines_of_one_npu_each_train_as_one(machine: SimulatedMachine, runs: Path) -> None:
    """Two launchers that meet on loopback, about 30 s."""
    together = ("--num_processes", 2, "--num_machines", 2, "--main_process_ip", "127.0.0.1")
    place = (*together, "--main_process_port", free_port())
    flags = ("--global_batch_size", 7, "--max_steps", STEPS, "--device", "npu", "--precision", "fp32")
    words = job(runs / "pairs.jsonl", runs / "machines", *flags)
    with ThreadPoolExecutor(2) as launchers:
        list(launchers.map(lambda rank: machine.burnish("launch", *place, "--machine_rank", rank, *words), (0, 1)))
    assert _losses(runs / "machines") == pytest.approx(_losses(runs / "one"), abs=1e-5)
    assert movement_ratio(runs / "one", runs / "machines") < 1e-4


def test_accelerates_launcher_starts_the_same_ranks(machine: SimulatedMachine, runs: Path) -> None:
    """About 20 s."""
    launcher = ("-m", "accelerate.commands.launch", "--num_processes", RANKS, "--num_machines", 1)
    place = ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port(), "--multi_gpu")
    flags = ("--global_batch_size", 7, "--max_steps", STEPS, "--device", "npu", "--precision", "fp32")
    words = job(runs / "pairs.jsonl", runs / "accelerate", *flags)
    two = machine.with_variables(SIMULATED_NPU_COUNT=str(RANKS))
    two.python(*launcher, *place, "-m", "burnish", *words)
    assert _losses(runs / "accelerate") == pytest.approx(_losses(runs / "ddp"), abs=1e-7)
    assert movement_ratio(runs / "one", runs / "accelerate") < 1e-4


def test_each_rank_updates_by_one_kernel_a_group(runs: Path) -> None:
    assert read_launches(runs / "launched" / "ddp")["aten::_fused_adamw_"] == RANKS * GROUPS * STEPS


def test_slices_are_computed_with_fused_operators(runs: Path) -> None:
    """As many norms as without slices, and those of layers once more where activations are computed again."""
    said = (runs / "said-2").read_text()
    assert said.count(f"fused operators: {', '.join(sorted(OPERATORS))} (") == 4, said
    whole, slices = (read_launches(runs / "launched" / name) for name in ("ddp", "fsdp"))
    backward = [counts["npu::npu_rms_norm_backward"] for counts in (whole, slices)]
    assert backward[0] == backward[1] > STEPS * NORMS_OF_A_PASS
    for operator in ("npu_rotary_mul", "npu_swiglu", "npu_fusion_attention"):
        backward = whole[f"npu::{operator}_backward"] or whole[f"npu::{operator}_grad"]
        assert backward == (slices[f"npu::{operator}_backward"] or slices[f"npu::{operator}_grad"]) > 0, operator
    assert slices["npu::npu_rms_norm"] > whole["npu::npu_rms_norm"]


def test_slices_are_exchanged_over_hccl(runs: Path) -> None:
    launched = read_launches(runs / "launched" / "fsdp")
    assert launched["hccl::_allgather_base"] > 2 * STEPS
    assert launched["hccl::_reduce_scatter_base"] > 2 * STEPS


def test_bfloat16_in_slices_is_bfloat16_on_one_npu_within_its_rounding(runs: Path) -> None:
    assert _losses(runs / "fsdp-half")[0] == pytest.approx(0.693147, abs=1e-6)
    assert _losses(runs / "fsdp-half") == pytest.approx(_losses(runs / "one-half"), abs=2e-3)
    rounding = movement_ratio(runs / "one", runs / "one-half")
    assert 1e-3 < movement_ratio(runs / "one", runs / "fsdp-half") < 1.25 * rounding


def test_an_adapter_in_slices_trains_and_is_saved(runs: Path) -> None:
    losses = _losses(runs / "adapter")
    assert losses[0] == pytest.approx(0.693147, abs=1e-6)
    assert losses[-1] != losses[0]
    assert (runs / "adapter" / "model" / "adapter_model.safetensors").is_file()
