"""Whole runs of the command on the wheel-free NPU: the path of an NPU, and the CPU's numbers."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest

from builders import build_model
from burnish import DPOConfig, DPOTrainer
from burnish.device.fused.table import OPERATORS
from burnish.errors import ConfigError
from jobs import POLICY, job, stage_job, write_completions, write_pairs
from npu.simulator.log import LAUNCHED
from npu.wheel_free.card import CARD
from runs import read_metrics, run_burnish

STEPS = 3
KERNELS = ("cross_entropy_loss_backward", "fusion_attention", "rms_norm", "rotary_mul", "swiglu")
"""Of each fused operator one."""
FLAGS = ("--precision", "fp32", "--max_steps", STEPS)


def _losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run) if record["kind"] == "train"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl", margin=0.25)


@pytest.fixture(scope="module")
def on_the_cpu(data: Path) -> Path:
    run_burnish(*job(data, data.parent / "cpu", *FLAGS, "--device", "cpu"))
    return data.parent / "cpu"


def test_a_run_and_its_resumption_are_the_cpus(
    data: Path, on_the_cpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adam's state, random states and weights go to the checkpoint and come back; no float64 meets the device."""
    saving = ("--save_strategy", "steps", "--save_steps", 1)
    LAUNCHED.clear()
    run_burnish(*job(data, tmp_path / "run", *FLAGS, *saving))
    said = capsys.readouterr().err
    assert "device: npu:0, Ascend910B2, 64 GiB, " in said
    assert f"fused operators: {', '.join(OPERATORS)} (--fused_operators none turns them off)" in said
    assert LAUNCHED["aten::_fused_adamw_"] == 2 * STEPS  # two groups of parameters
    assert all(LAUNCHED[f"npu::npu_{name}"] >= STEPS for name in KERNELS)
    assert _losses(tmp_path / "run") == pytest.approx(_losses(on_the_cpu), abs=1e-5)
    whole = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    for step in ("step-3", "step-2"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / step)
    run_burnish(*job(data, tmp_path / "run", *FLAGS, *saving, "--resume_from_checkpoint", "auto"))
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == whole


def test_a_step_that_the_memory_has_no_room_for_is_cut_smaller(
    data: Path, on_the_cpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With three quarters of what the run takes by itself; what earlier tests held and reached is not its own."""
    words = job(data, tmp_path / "run", *FLAGS, "--max_tokens_per_micro_batch", 4096, "--overwrite")
    gc.collect()
    held = CARD.peak_bytes = CARD.held_bytes
    run_burnish(*words)
    taken = CARD.peak_bytes - held
    gc.collect()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CARD, "total_bytes", CARD.held_bytes + taken * 3 // 4)
        run_burnish(*words)
    assert "NPU out of memory" in capsys.readouterr().err
    assert _losses(tmp_path / "run") == pytest.approx(_losses(on_the_cpu), abs=1e-5)


@pytest.mark.parametrize("name", ["model", "ref_model"])
def test_a_model_whose_attention_drops_windows_is_refused(name: str, data: Path, tmp_path: Path) -> None:
    model = build_model("mistral-window")
    model.config._attn_implementation = "flash_attention_2"
    args = DPOConfig(model_name_or_path=str(POLICY), dataset_name=str(data), output_dir=str(tmp_path / "run"))
    said = f"^{name}: flash_attention_2 drops sliding windows on an NPU"
    with pytest.raises(ConfigError, match=said):
        _ = DPOTrainer(args=args, **{name: model}).session


@pytest.mark.parametrize("command", ["sft", "kto", "reward"])
def test_other_methods_send_no_float64_and_mix_no_devices(command: str, data: Path, tmp_path: Path) -> None:
    rows = data if command == "reward" else write_completions(tmp_path / "rows.jsonl", labelled=command == "kto")
    losses = []
    for device in ("npu", "cpu"):
        words = (*FLAGS, "--max_steps", 2, "--device", device)
        run_burnish(*stage_job(command, rows, tmp_path / device, *words))
        losses.append(_losses(tmp_path / device))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("more", [("--lora_dropout", 0.1, "--gradient_checkpointing"), ("--use_dora",)], ids=str)
def test_adapters_train_in_bfloat16(more: tuple[Any, ...], data: Path, tmp_path: Path) -> None:
    words: tuple[Any, ...] = ("--max_steps", 2, "--use_peft", *more)
    run_burnish(*job(data, tmp_path / "run", *words))
    losses = _losses(tmp_path / "run")
    assert losses[0] != losses[1]
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()
