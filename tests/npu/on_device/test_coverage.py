"""No operator of a training step is without a kernel in the vendor's wheel, and none meets a dtype it has none for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import job, stage_job, write_completions, write_pairs
from npu.recorder import OperatorRecorder, denied
from npu.simulator import registered as wheel
from npu.simulator.hook import is_simulated
from runs import run_burnish

STEPS = 2
STEP = {
    "the forward pass": "aten::embedding",
    "the backward pass": "aten::matmul_backward",
    "the objective": "aten::log_sigmoid_forward",
    "its metrics": "aten::gt.Tensor",
    "clipping, the norm": "aten::_foreach_norm.Scalar",
    "clipping, the scale": "aten::_foreach_mul_.Tensor",
}
"""What each part of a step leaves in the record, so that none of them can be missing from it."""
FUSED = {"the optimizer": "aten::_fused_adamw_"}
SCALED = {"the optimizer": "aten::addcdiv_", "the scaler": "aten::_amp_foreach_non_finite_check_and_unscale_"}
PLAIN = {"attention": "npu::npu_fusion_attention", "the head": "aten::logsumexp", "norms": "aten::rsqrt"}
JOBS: dict[str, tuple[tuple[Any, ...], dict[str, str]]] = {
    "bf16": ((), FUSED),
    "fp32": (("--precision", "fp32"), FUSED),
    "fp16": (("--precision", "fp16"), SCALED),
    "no fused operators": (("--fused_operators", "none"), FUSED | PLAIN),
    "activations computed again": (("--gradient_checkpointing",), FUSED),
    "adapter": (("--use_peft", "--lora_dropout", 0.1), FUSED | {"dropout": "aten::native_dropout"}),
}


@pytest.mark.parametrize("name", JOBS)
def test_every_operator_of_a_whole_dpo_run_has_a_kernel_or_is_composed(name: str, tmp_path: Path) -> None:
    """Loading, reference and policy scores, metrics, gradients, clipping, optimizer: as the command makes them."""
    words, parts = JOBS[name]
    data = write_pairs(tmp_path / "pairs.jsonl")
    with OperatorRecorder("npu") as record:
        run_burnish(*job(data, tmp_path / "run", "--device", "npu", "--max_steps", STEPS, *words))
    unseen = {part: operator for part, operator in (STEP | parts).items() if operator not in record.dtypes}
    assert unseen == {}, sorted(record.dtypes)
    assert wheel.without_kernel(set(record.dtypes)) == []
    assert denied(record) == {}


@pytest.mark.parametrize("command", ["sft", "kto", "reward"])
def test_so_has_every_operator_of_the_other_methods(command: str, tmp_path: Path) -> None:
    pairs, rows = write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "rows.jsonl"
    data = pairs if command == "reward" else write_completions(rows, labelled=command == "kto")
    with OperatorRecorder("npu") as record:
        run_burnish(*stage_job(command, data, tmp_path / "run", "--device", "npu", "--max_steps", STEPS))
    assert {"aten::embedding", "aten::matmul_backward", *FUSED.values()} <= set(record.dtypes)
    assert wheel.without_kernel(set(record.dtypes)) == []
    assert denied(record) == {}


def test_attention_has_its_own_route_to_the_vendors_operator() -> None:
    """sdpa is composed in torch, of operators that keep every score: without a kernel of its own it would be slow."""
    for key in ("PrivateUse1", "AutogradPrivateUse1"):
        assert "aten::scaled_dot_product_attention" in wheel.registered(key)


def test_an_operator_without_a_kernel_is_found() -> None:
    with OperatorRecorder("cpu") as record:
        torch.linalg.householder_product(torch.ones(2, 2), torch.ones(2))
    assert wheel.without_kernel(set(record.dtypes)) == ["aten::linalg_householder_product"]


def test_a_kernel_that_the_wheel_lacks_is_missed_in_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is of the whole step, and it is the wheel that is asked."""
    lost = {*STEP.values(), *FUSED.values()}
    with OperatorRecorder("npu") as record:
        run_burnish(*job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--device", "npu", "--max_steps", 1))
    monkeypatch.setattr(wheel, "_REGISTERED", {key: wheel.registered(key) - lost for key in wheel.KEYS})
    assert wheel.without_kernel(set(record.dtypes)) == sorted(lost)


@pytest.mark.skipif(not is_simulated(), reason="nothing stands in for the wheel's kernels on a real card")
def test_a_stand_in_is_not_asked() -> None:
    """It takes places that the wheel has and makes none; one that did would not count as the wheel's."""
    listed = torch._C._dispatch_get_registrations_for_dispatch_key
    for key in ("PrivateUse1", "AutogradPrivateUse1"):
        assert {name for name in listed(key) if name.startswith(("aten::", "npu::"))} <= wheel.registered(key)
    library = torch.library.Library("aten", "IMPL")
    library.impl("geqrf", lambda values: values, "PrivateUse1")
    try:
        assert "aten::geqrf" in listed("PrivateUse1")
        assert wheel.without_kernel({"aten::geqrf"}) == ["aten::geqrf"]
    finally:
        library._destroy()


def test_a_dtype_without_a_kernel_is_found() -> None:
    with OperatorRecorder("cpu") as record:
        torch.ones(2, dtype=torch.bfloat16).logsumexp(0)
        torch.ones(2, dtype=torch.bfloat16).exp()
        torch.ones(2).cumsum(0)
        torch.ones(2, dtype=torch.float64).add(1)
    assert denied(record) == {
        "logsumexp": {torch.bfloat16},
        "ones": {torch.float64},
        "add": {torch.float64},
    }
