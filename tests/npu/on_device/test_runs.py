"""Whole runs on the NPU, against the same runs on the CPU."""

from __future__ import annotations

import importlib
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.demo import demo_paths
from jobs import job, model_tensors, movement_ratio, write_pairs
from runs import read_metrics, run_burnish

STEPS = 10
VENDOR = importlib.import_module("torch_npu")


def _demo(output: Path, *words: Any) -> list[Any]:
    """The embedded job without its many replies, which only cost time here."""
    paths = demo_paths()
    return [
        *("dpo", "--config", paths.settings, "--model_name_or_path", paths.model, "--dataset_name", paths.data),
        *(
            "--output_dir",
            output,
            "--max_steps",
            STEPS,
            "--logging_steps",
            1,
            "--num_samples",
            0,
            "--save_strategy",
            "no",
        ),
        *("--eval_strategy", "no", "--reference_cache", "memory", "--max_train_samples", 160),
        *("--global_batch_size", 8, "--num_threads", 1),
        *words,
    ]


def _losses(run: Path) -> torch.Tensor:
    return torch.tensor([r["loss"] for r in read_metrics(run) if r["kind"] == "train"], dtype=torch.float64)


def _both(folder: Path, *words: Any) -> tuple[torch.Tensor, torch.Tensor]:
    losses = []
    for device in ("npu", "cpu"):
        run_burnish(*_demo(folder / device, "--device", device, *words))
        losses.append(_losses(folder / device))
    return losses[0], losses[1]


def _assert_as_on_cpu(both: tuple[torch.Tensor, torch.Tensor], tolerance: float) -> None:
    """Equal losses, of runs that learn: from ln 2 they fall by many times what they may be apart."""
    npu, cpu = both
    assert len(npu) == STEPS
    torch.testing.assert_close(npu, cpu, rtol=tolerance, atol=0)
    for losses in both:
        assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
        assert losses.min() < math.log(2) - max(0.01, 8 * tolerance * math.log(2)), losses
        assert len(losses.unique()) >= STEPS - 1, losses  # the warm-up's first step moves nothing


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, torch.Tensor]:
    return _both(tmp_path_factory.mktemp("float32"), "--precision", "fp32")


def test_in_float32_the_losses_are_the_cpus(in_float32: tuple[torch.Tensor, torch.Tensor]) -> None:
    _assert_as_on_cpu(in_float32, 1e-5)


def test_in_bfloat16_the_losses_are_the_cpus_within_its_rounding(
    tmp_path: Path, in_float32: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """As near to the CPU's in bfloat16 as to float32's, which they are not: products are rounded on the device."""
    npu, cpu = _both(tmp_path, "--precision", "bf16")
    _assert_as_on_cpu((npu, cpu), 2**-8)
    _assert_as_on_cpu((npu, in_float32[1]), 2**-8)
    assert (npu - in_float32[0]).abs().max() > 1e-4


def test_an_adapter_trains_as_on_the_cpu(tmp_path: Path) -> None:
    words = ("--precision", "fp32", "--use_peft", "--lora_target_modules", "all-linear", "--learning_rate", 5e-3)
    _assert_as_on_cpu(_both(tmp_path, *words), 1e-5)


def _whole_and_resumed(folder: Path, *words: Any) -> tuple[Path, Path]:
    """A run of six steps, and the same run which lost its last four and went on from its checkpoint of step 2."""
    data = write_pairs(folder / "pairs.jsonl", count=48)
    common = ("--device", "npu", "--num_train_epochs", 1, "--save_strategy", "steps", "--save_steps", 2, *words)
    run_burnish(*job(data, folder / "whole", *common))
    run_burnish(*job(data, folder / "parts", *common))
    last = max((folder / "parts" / "checkpoints").iterdir())
    assert last.name.endswith("6")
    for step in ("step-6", "step-4"):
        shutil.rmtree(folder / "parts" / "checkpoints" / step)
    run_burnish(*job(data, folder / "parts", *common, "--resume_from_checkpoint", "auto"))
    return folder / "whole", folder / "parts"


@pytest.mark.parametrize("words", [(), ("--use_peft", "--lora_dropout", 0.1)], ids=["full", "adapter-with-dropout"])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path, words: tuple[Any, ...]) -> None:
    runs = _whole_and_resumed(tmp_path, *words)
    name = "adapter_model.safetensors" if words else "model.safetensors"
    whole, parts = ((run / "model" / name).read_bytes() for run in runs)
    assert whole == parts
    assert torch.equal(*map(_losses, runs))


def test_a_resumed_run_goes_on_with_its_loss_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """In fp16, from a scale so high that steps 1, 2 and 4 overflow: it falls before the checkpoint and after it."""
    begin = VENDOR.npu.amp.GradScaler.__init__
    monkeypatch.setattr(begin, "__defaults__", (2.0**21, *begin.__defaults__[1:]))
    runs = _whole_and_resumed(tmp_path, "--precision", "fp16")
    for run in runs:
        norms = [record["grad_norm"] for record in read_metrics(run) if record["kind"] == "train"]
        assert [step for step, norm in enumerate(norms, 1) if norm == "Infinity"] == [1, 2, 4]
    whole, parts = ((run / "model" / "model.safetensors").read_bytes() for run in runs)
    assert whole == parts
    assert torch.equal(*map(_losses, runs))
    assert not [warning for warning in recwarn if "optimizer.step" in str(warning.message)]


def test_recomputed_activations_give_the_same_weights(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    common = ("--device", "npu", "--precision", "fp32")
    run_burnish(*job(data, tmp_path / "kept", *common))
    run_burnish(*job(data, tmp_path / "recomputed", *common, "--gradient_checkpointing"))
    assert movement_ratio(tmp_path / "kept", tmp_path / "recomputed") < 1e-4
    assert model_tensors(tmp_path / "kept")


@pytest.mark.parametrize("words", [(), ("--gradient_checkpointing",)], ids=["kept", "recomputed"])
def test_activations_on_the_host_give_the_same_weights_in_less_memory(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Where layers are recomputed, one of them at work is the peak of a model this small, and the host holds none."""
    data = write_pairs(tmp_path / "pairs.jsonl")
    common = ("--device", "npu", "--precision", "fp32", "--max_tokens_per_micro_batch", 2048, *words)
    peaks = []
    for name, more in (("device", ()), ("host", ("--activation_offloading",))):
        VENDOR.npu.reset_peak_memory_stats()
        run_burnish(*job(data, tmp_path / name, *common, *more))
        peaks.append(torch.npu.max_memory_allocated())  # pyright: ignore[reportAttributeAccessIssue]
    assert movement_ratio(tmp_path / "device", tmp_path / "host") < 1e-6
    assert words or peaks[1] < peaks[0]
