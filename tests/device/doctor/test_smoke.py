"""The trials notice a device that computes wrongly, and a wrong result fails the check."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from burnish.device.doctor.chain import CHAIN
from burnish.device.doctor.findings import Finding
from burnish.device.doctor.probes import small_run
from burnish.device.doctor.smoke import TRIALS, check_ranks
from burnish.device.fused.table import OPERATORS

ATTENTION = torch.nn.functional.scaled_dot_product_attention


class OnDevice:
    """Replaces a function on its first, third, … call: the device goes first, the CPU second."""

    def __init__(self, wrong: Any, right: Any) -> None:
        self.wrong, self.right, self.calls = wrong, right, 0

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        self.calls += 1
        return (self.wrong if self.calls % 2 else self.right)(*arguments, **settings)


def without_mask(query: Any, key: Any, value: Any, *, attn_mask: Any) -> Any:
    return ATTENTION(query, key, value, is_causal=True)


def without_window(query: Any, key: Any, value: Any, *, attn_mask: Any) -> Any:
    """Let every row see all that the last row of a causal mask allows: right for causal rows, wrong for a window."""
    length = attn_mask.shape[-1]
    return ATTENTION(query, key, value, attn_mask=attn_mask | torch.ones(length, length).tril().bool())


class StaleAdamW(torch.optim.AdamW):
    """Goes on with the gradients of its first step, as a vendor's fused AdamW does after zero_grad set them to None."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                self.first = getattr(self, "first", parameter.grad.clone())
                parameter.grad = self.first.clone()
        return super().step(closure)


@pytest.mark.parametrize("name", small_run.TRIALS)
def test_every_trial_passes_on_the_cpu(name: str):
    measured, limit = small_run.TRIALS[name](torch, "cpu")
    assert 0 <= measured <= limit


@pytest.mark.parametrize("wrong", [without_mask, without_window])
def test_the_attention_trial_notices_a_dropped_mask(monkeypatch: pytest.MonkeyPatch, wrong: Any):
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", OnDevice(wrong, ATTENTION))
    measured, limit = small_run.attention(torch, "cpu")
    assert measured > 10 * limit


def test_the_optimizer_trial_notices_stale_gradients(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.optim, "AdamW", OnDevice(StaleAdamW, torch.optim.AdamW))
    measured, limit = small_run.optimizer(torch, "cpu")
    assert measured > 10 * limit


def test_the_bfloat16_trial_notices_a_device_that_ignores_autocast(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "autocast", lambda **_: torch.enable_grad())
    with pytest.raises(RuntimeError, match=r"autocast gave torch\.float32"):
        small_run.bfloat16(torch, "cpu")


def matmul_of(ascend: Any, stages: Any, **facts: Any) -> Finding:
    ascend.answer("small_run.py", stages({"stage": "matmul", **facts}))
    return TRIALS["matmul"](ascend.machine())


@pytest.mark.parametrize("measured", [0.5, math.nan, math.inf])
def test_a_wrong_result_fails_and_nan_is_wrong(ascend, stages, measured: float):
    finding = matmul_of(ascend, stages, measured=measured, limit=1e-3)
    assert (finding.status, finding.key) == ("failure", "smoke.wrong")


def test_a_wrong_fused_operator_is_named_with_how_to_train_without_it(ascend, stages):
    ascend.answer("small_run.py", stages({"stage": "fused_rotary", "measured": 0.3, "limit": 5e-3}))
    finding = TRIALS["fused_rotary"](ascend.machine())
    assert (finding.status, finding.key) == ("failure", "smoke.fused_wrong")
    assert "--fused_operators attention cross_entropy rms_norm swiglu;" in finding.cure("en")
    assert "--fused_operators attention cross_entropy rms_norm swiglu；" in finding.cure("zh")


def test_fused_operators_are_tried_on_an_npu_alone(fake, stages):
    fake.answer("small_run.py", stages({"stage": "matmul", "measured": 0.0, "limit": 1e-3}))
    assert TRIALS["fused_swiglu"](fake.machine()).key == "skip.no_npu"
    assert small_run.trials_of("cpu") == small_run.TRIALS
    assert {f"fused_{operator}" for operator in OPERATORS} == set(TRIALS) - set(small_run.TRIALS)
    assert set(small_run.trials_of("npu")) == set(TRIALS) <= {link.name for link in CHAIN}


def test_a_card_whose_runs_take_no_fused_operator_is_not_tried_with_them(ascend, stages):
    ascend.answer("small_run.py", stages({"stage": "fused_swiglu", "absent": True}))
    finding = TRIALS["fused_swiglu"](ascend.machine())
    assert (finding.status, finding.key) == ("skipped", "skip.plain_operators")


def test_an_error_on_the_device_is_explained(ascend, stages):
    finding = matmul_of(ascend, stages, error="RuntimeError: call aclnnMatmul failed, error code is 561103")
    assert finding.status == "failure"
    assert "ops (kernels) package" in finding.cure("en")


def test_a_card_without_bfloat16_is_told(ascend, stages):
    ascend.answer("small_run.py", stages({"stage": "bf16", "absent": True}))
    assert TRIALS["bf16"](ascend.machine()).key == "smoke.no_bf16"


def test_a_process_that_dies_is_no_success(ascend):
    ascend.answer("small_run.py", code=-11)
    assert TRIALS["matmul"](ascend.machine()).status == "failure"
    ascend.answer("small_run.py", code=1, error="Traceback\nRuntimeError: NPU out of memory. Tried to allocate 2 GiB")
    assert "--use_peft" in TRIALS["matmul"](ascend.machine()).cure("en")


@pytest.mark.parametrize(
    ("facts", "error", "key"),
    [
        ({"good": True, "right": False, "seconds": 1.0}, "", "ranks.wrong"),
        ({"good": False, "right": False, "seconds": 1.0}, "EI0006: Getting socket times out", "ranks.fails"),
        (None, "", "ranks.fails"),
    ],
)
def test_two_processes_that_disagree_or_fail_are_a_failure(ascend, stages, facts: Any, error: str, key: str):
    ascend.answer("two_ranks.py", stages({"stage": "ranks", **facts}) if facts else "", error=error, code=1)
    finding = check_ranks(ascend.machine())
    assert (finding.status, finding.key) == ("failure", key)
    if error:
        assert "HCCL_CONNECT_TIMEOUT" in finding.cure("en")


def test_ranks_left_by_a_launcher_do_not_reach_the_trial(ascend, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    run = ascend.run
    monkeypatch.setattr(ascend, "run", lambda command, **how: seen.append(how["environment"]) or run(command, **how))
    ascend.environment |= {"RANK": "3", "WORLD_SIZE": "8"}
    machine = ascend.machine()
    assert check_ranks(machine).status == "ok"
    assert "RANK" not in seen[-1]
    assert seen[-1]["ASCEND_HOME_PATH"] == machine.environment["ASCEND_HOME_PATH"]
