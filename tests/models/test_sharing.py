"""The estimate of a device's memory against the bytes that a training step holds, alone and with FSDP2."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from builders import build_group
from burnish.batching.layout import MicroBatch, lay_out
from burnish.device.optimizer import build_adamw
from burnish.models.adapters import add_adapter
from burnish.models.estimate import estimate_memory
from burnish.models.settings import AdapterSettings
from burnish.models.sharing import share_memory
from burnish.scoring.scorer import Scorer, unwrap_adapter

SHAPE: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 4000, "tie_word_embeddings": False,
}  # fmt: skip
ROW, ROWS, DEVICES = 128, 2, 8
FAMILIES: dict[str, tuple[Any, Any]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


class LiveBytes(TorchDispatchMode):
    """The most bytes of storages that were alive after any operator; storages that are emptied count no more."""

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in tensors:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._see(value)
        storages = [reference() for reference in self._alive.values()]
        self.peak = max(self.peak, sum(storage.nbytes() for storage in storages if storage is not None))
        return result

    def _see(self, tensor: Any) -> None:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._alive.pop(key, None))


def _build(family: str, *, adapter: list[str] | None, checkpointing: bool, **changes: Any) -> Any:
    torch.manual_seed(0)
    config, kind = FAMILIES[family]
    model = kind(config(**{**SHAPE, **changes})).train()
    if adapter is not None:
        model = add_adapter(model, AdapterSettings(lora_target_modules=adapter))
    if checkpointing:
        unwrap_adapter(model).activation_checkpointing_enable({"use_reentrant": False})
    return model


def _batches() -> list[MicroBatch]:
    generator = np.random.default_rng(0)
    completions = (ROW // 4, ROW // 4)
    groups = [[build_group(generator, prompt=ROW // 2, completions=completions) for _ in range(ROWS)] for _ in range(2)]
    return [lay_out(rows, shared=True, pad_id=0) for rows in groups]


def _step(scorer: Any, optimizer: Any, batches: list[MicroBatch], dtype: torch.dtype) -> None:
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            logps = scorer(batch).logps
        torch.nn.functional.logsigmoid(logps[::2] - logps[1::2]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _measure(scorer: Any, dtype: torch.dtype) -> int:
    """Peak of the second step, whose optimizer has its moments, over two micro-batches."""
    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    optimizer = build_adamw([{"params": trained}], kind="cpu", precision="fp32", lr=1e-4)
    batches = _batches()
    _step(scorer, optimizer, batches[:1], dtype)
    gc.collect()
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    with LiveBytes([*scorer.parameters(), *scorer.buffers(), *states]) as measured:
        _step(scorer, optimizer, batches, dtype)
    return measured.peak


def _step_shape(dtype: torch.dtype) -> dict[str, Any]:
    return {"tokens": ROW * ROWS, "row_tokens": ROW, "counted_tokens": ROWS * ROW // 2, "compute_dtype": dtype}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("adapter", [None, ["q_proj", "v_proj"], ["all-linear"]], ids=["full", "q and v", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_alone_holds_what_is_estimated_to_a_tenth(
    family: str, adapter: list[str] | None, checkpointing: bool, dtype: torch.dtype
) -> None:
    model = _build(family, adapter=adapter, checkpointing=checkpointing)
    estimate = estimate_memory(model, **_step_shape(dtype))
    assert estimate.total == pytest.approx(_measure(Scorer(model), dtype), rel=0.1), estimate


@pytest.fixture
def eight_ranks() -> Iterator[None]:
    """This process as the first of eight, whose exchanges allocate what real ones do and send nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=DEVICES)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("adapter", [None, ["all-linear"]], ids=["full", "all"])
@pytest.mark.usefixtures("eight_ranks")
def test_a_device_of_eight_under_fsdp2_holds_what_is_estimated_to_a_tenth(
    adapter: list[str] | None, checkpointing: bool, dtype: torch.dtype
) -> None:
    model = _build("qwen2", adapter=adapter, checkpointing=checkpointing)
    estimate = share_memory(model, devices=DEVICES, parallel="fsdp", **_step_shape(dtype))
    scorer: Any = Scorer(model)
    mesh = dist.device_mesh.init_device_mesh("cpu", (DEVICES,))
    policy = MixedPrecisionPolicy(param_dtype=None if dtype is torch.float32 else dtype, reduce_dtype=torch.float32)
    layers: Any = unwrap_adapter(model).model  # pyright: ignore[reportAttributeAccessIssue]
    for layer in layers.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(scorer, mesh=mesh, mp_policy=policy)
    assert estimate.total == pytest.approx(_measure(scorer, dtype), rel=0.1), estimate


def test_ddp_holds_gradients_once_more_and_nothing_less() -> None:
    model = _build("qwen2", adapter=None, checkpointing=False)
    alone = estimate_memory(model, tokens=64)
    shared = share_memory(model, devices=8, parallel="ddp", tokens=64)
    assert shared.total == alone.total + alone.gradients
    assert share_memory(model, devices=1, parallel="ddp", tokens=64) == alone
