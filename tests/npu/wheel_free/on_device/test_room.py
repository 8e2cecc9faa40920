"""What the device room chooses, says, sets, counts and refuses on an NPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import CONFIGS, build_groups, build_model
from burnish.batching.layout import lay_out
from burnish.device.clock import seconds_of
from burnish.device.fused.fuse import fuse_operators
from burnish.device.fused.table import OPERATORS
from burnish.device.memory import (
    available_memory_bytes,
    free_cached_memory,
    is_out_of_memory,
    peak_memory_bytes,
    total_memory_bytes,
)
from burnish.device.npu import npu_module
from burnish.device.optimizer import build_adamw
from burnish.device.pick import Device, pick_device
from burnish.device.precision import choose_precision
from burnish.device.ranks import BACKENDS
from burnish.device.rng import device_rng_state, forked_rng, mark_rng, seed_everything, set_device_rng_state
from burnish.errors import ConfigError
from burnish.scoring.scorer import Scorer
from npu.simulator.log import LAUNCHED
from npu.wheel_free.card import CARD, GIB

NPU = torch.device("npu", 0)
OLD_CHIP = "Ascend910PremiumA"
STEPS = 4


@pytest.fixture
def device() -> Device:
    return pick_device()


def test_the_npu_is_chosen_first_and_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driver = tmp_path / "version.info"
    driver.write_text("Version=25.2.0\n")
    (tmp_path / "version.cfg").write_text("runtime_running_version=[9.1.0:9.1.0]\n")
    monkeypatch.setattr("burnish.device.npu._DRIVER_FILE", driver)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    device = pick_device()
    assert (device.kind, device.torch_device, device.is_accelerator) == ("npu", NPU, True)
    versions = "driver 25.2.0, CANN 9.1.0, torch_npu 0+wheel-free"
    assert device.reason == f"npu:0, Ascend910B2, 64 GiB, {versions} (the first that works)"
    assert pick_device("npu").reason.endswith("(as asked)")
    assert pick_device("cpu").kind == "cpu"
    assert BACKENDS[device.kind] == "hccl"


def test_each_rank_takes_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(CARD, "index", 0)
    monkeypatch.setattr(CARD, "count", 4)
    assert pick_device().torch_device == torch.device("npu", 3)
    assert CARD.index == 3
    monkeypatch.setattr(CARD, "count", 3)
    with pytest.raises(ConfigError, match=r"process 3 of this machine wants npu:3, and only 3 can be seen"):
        pick_device()


def test_no_visible_card_leaves_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CARD, "count", 0)
    chosen = pick_device()
    assert chosen.kind == "cpu"
    assert "no npu: torch_npu sees no device; `burnish doctor` says why" in chosen.reason
    with pytest.raises(ConfigError, match="--device npu: torch_npu sees no device"):
        pick_device("npu")


def test_a_driver_that_raises_leaves_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> bool:
        raise RuntimeError("drvRetCode=87\nmore")

    monkeypatch.setattr(npu_module(), "is_available", fails)
    assert "no npu: torch_npu fails (drvRetCode=87)" in pick_device().reason


def test_what_training_wants_is_set_and_told_in_one_line() -> None:
    prebuilt, compiled = pick_device(), pick_device(jit_compile=True)
    assert npu_module().compile_modes[-2:] == [False, True]
    made = "PYTORCH_NPU_ALLOC_CONF=expandable_segments:True, TASK_QUEUE_ENABLE=2"
    cure = "your own values of these variables win"
    assert prebuilt.settings == f"npu: prebuilt operators (jit_compile off), {made}; {cure}"
    assert compiled.settings == f"npu: operators are compiled for each shape, {made}; {cure}"
    assert pick_device("cpu").settings == ""


def test_precision_is_bf16_where_the_card_has_it(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("auto", device).name == "bf16"
    monkeypatch.setattr(CARD, "chip", OLD_CHIP)
    old = choose_precision("auto", device)
    assert old.name == "fp16"
    assert "this npu has no bf16; losses are scaled, and AdamW is not fused" in old.reason
    with pytest.raises(ConfigError, match="--precision bf16: this npu has no bfloat16"):
        choose_precision("bf16", device)


def test_memory_is_counted(device: Device) -> None:
    assert total_memory_bytes(device) == 64 * GIB
    before, free = CARD.held_bytes, available_memory_bytes(device)
    block = torch.ones(2**20, device=NPU)
    view = block[:4]
    assert available_memory_bytes(device) == free - 2**22
    assert peak_memory_bytes(device) >= before + 2**22
    del block
    assert CARD.held_bytes == before + 2**22, "the view holds it"
    del view
    assert CARD.held_bytes == before
    emptied = npu_module().num_emptied
    free_cached_memory(NPU)
    assert npu_module().num_emptied == emptied + 1


def test_the_end_of_memory_is_recognised(device: Device) -> None:
    with pytest.raises(RuntimeError, match="NPU out of memory") as caught:
        torch.empty(2**37, dtype=torch.uint8, device=NPU)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("call aclnnMatmul failed, error code is 561103"))


def test_the_random_state_of_the_device_is_its_own_and_kept(device: Device) -> None:
    def draw() -> torch.Tensor:
        return torch.rand(8, device=NPU).cpu()

    seed_everything(5)
    state, on_host = device_rng_state(device), torch.rand(8)
    assert state is not None
    with forked_rng(device):
        inside = draw()
    outside = draw()
    assert torch.equal(inside, outside), "the block left the state as it was"
    put_back = mark_rng(device)
    later = draw()
    put_back()
    assert torch.equal(draw(), later)
    set_device_rng_state(device, state)
    assert torch.equal(draw(), outside)
    seed_everything(5)
    assert torch.equal(torch.rand(8), on_host), "the device drew nothing from the host's generator"
    assert torch.equal(draw(), outside), "seed_everything seeds the device"


def test_time_is_taken_from_an_idle_device_to_an_idle_device(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(npu_module(), "synchronize", lambda device: order.append(f"wait for {device}"))
    assert seconds_of(lambda: order.append("work"), NPU) >= 0
    assert order == ["wait for npu:0", "work", "wait for npu:0"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: torch.ones(2, device=NPU) + torch.ones(2), "two devices"),
        (lambda: torch.ones(2, 2, device=NPU) @ torch.ones(2, 2), "two devices"),
        (lambda: torch.ones(2, device=NPU).index_select(0, torch.tensor([0])), "two devices"),
        (lambda: torch.ones(2, device=NPU, dtype=torch.float64), "DT_DOUBLE"),
        (lambda: torch.ones(2, dtype=torch.float64).to(NPU), "DT_DOUBLE"),
        (lambda: torch.ones(2, device=NPU).double(), "DT_DOUBLE"),
        (lambda: torch.ones(2, 2, device=NPU, dtype=torch.bfloat16).cumsum(1), "DT_BFLOAT16"),
    ],
)
def test_what_a_card_refuses_is_refused_here(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        call()


def test_tensors_are_made_on_the_device() -> None:
    made = [torch.eye(2, device=NPU), torch.arange(1, 4, device=NPU), torch.full((2,), 3, device=NPU)]
    made += [torch.linspace(0, 1, 3, device=NPU), torch.tensor([1, 2], device=NPU)]
    assert {value.device for value in made} == {NPU}
    assert [value.cpu().tolist() for value in made] == [[[1, 0], [0, 1]], [1, 2, 3], [3, 3], [0, 0.5, 1], [1, 2]]


def test_what_crosses_to_the_host_may_be_float64_there() -> None:
    assert (torch.ones(2, device=NPU) + torch.tensor(2.0)).to("cpu", torch.float64).tolist() == [3.0, 3.0]
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(2, device=NPU).numpy()


def _train(build: Callable[[list[Any]], torch.optim.Optimizer], place: torch.device) -> torch.Tensor:
    """Weights after steps whose gradients are set to None between, as our loop does."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(16, 8, generator=generator).to(place))
    optimizer = build([weight])
    for _ in range(STEPS):
        rows = torch.randn(12, 16, generator=generator).to(place)
        (rows @ weight).tanh().square().sum().backward()
        optimizer.step()
        weight.grad = None
    return weight.detach().cpu()


@pytest.mark.parametrize(("precision", "kernels"), [("bf16", STEPS), ("fp32", STEPS), ("fp16", 0)])
def test_adamw_is_fused_but_under_a_scaler_and_uses_each_steps_gradients(precision: Any, kernels: int) -> None:
    expected = _train(lambda weights: torch.optim.AdamW(weights, lr=0.01, foreach=False), torch.device("cpu"))
    LAUNCHED.clear()
    groups = lambda weights: [{"params": weights}]  # noqa: E731
    ours = _train(lambda weights: build_adamw(groups(weights), kind="npu", precision=precision, lr=0.01), NPU)
    assert LAUNCHED["aten::_fused_adamw_"] == kernels
    assert not LAUNCHED.keys() & {"aten::_foreach_lerp_.Scalar", "aten::_foreach_addcdiv_.ScalarList"}
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_a_sliding_window_is_not_dropped(shared: bool, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistral with a window of 5 over rows of up to 36 tokens, fused operators on."""

    def score(model: Any, place: torch.device) -> torch.Tensor:
        return Scorer(model)(lay_out(build_groups(1), shared=shared, pad_id=0).to(place)).token_logps.detach().cpu()

    host = torch.device("cpu")
    expected = score(build_model("mistral-window"), host)
    monkeypatch.setattr(CONFIGS["mistral-window"], "sliding_window", None)
    assert (score(build_model("mistral-window"), host) - expected).abs().max() > 0.01, "the window matters here"
    monkeypatch.undo()
    model: Any = build_model("mistral-window")
    model.to(NPU)
    assert "attention" in fuse_operators(model, device, ["auto"])
    torch.testing.assert_close(score(model, NPU), expected, rtol=1e-5, atol=2e-5)


def test_fused_operators_are_the_models_own_code_on_the_host(device: Device) -> None:
    """What FSDP2 needs: the self-check of a model that goes to its devices in slices runs on the host."""
    batch = lay_out(build_groups(1), shared=True, pad_id=0)
    expected = Scorer(build_model("qwen2"))(batch).token_logps
    model = build_model("qwen2")
    assert fuse_operators(model, device, ["auto"]) == sorted(OPERATORS)
    LAUNCHED.clear()
    assert torch.equal(Scorer(model)(batch).token_logps, expected)
    assert not LAUNCHED
