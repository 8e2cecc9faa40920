"""The estimate of a device's memory against the bytes that a training step holds, alone and with FSDP2."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from builders import build_group
from burnish.batching.layout import MicroBatch, lay_out
from burnish.device.launch import DATA_PARALLEL
from burnish.device.optimizer import build_adamw
from burnish.device.pick import Device
from burnish.device.ranks import Ranks
from burnish.device.sharding import is_sharded, shard_module
from burnish.models.estimate import count_parameters, estimate_memory
from burnish.models.reference import FrozenReference, copy_of_start
from burnish.models.sharing import share_memory
from burnish.scoring.architecture import layers_of
from burnish.scoring.scorer import Scorer
from live_bytes import LiveBytes
from measured_steps import build_batches, build_model, step_shape

SEVEN_BILLION: dict[str, Any] = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip


def _step(
    scorer: Any, optimizer: Any, batches: list[MicroBatch], dtype: torch.dtype, reference: FrozenReference | None
) -> None:
    for number, batch in enumerate(batches):
        is_last = number == len(batches) - 1
        exchange = nullcontext() if is_last or not hasattr(scorer, "no_sync") else scorer.no_sync()
        with exchange:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
                known = 0.0 if reference is None else reference.score(batch).logps
                logps = scorer(batch).logps - known
            torch.nn.functional.logsigmoid(logps[::2] - logps[1::2]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def _measure(scorer: Any, dtype: torch.dtype, reference: FrozenReference | None = None) -> int:
    """Peak of the third step, whose optimizer has its moments and whose exchange its buffers; two micro-batches."""
    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    optimizer = build_adamw([{"params": trained}], kind="cpu", precision="fp32", lr=1e-4)
    batches = build_batches()
    frozen = [] if reference is None else [*reference.scorer.parameters(), *reference.scorer.buffers()]
    with LiveBytes([*scorer.parameters(), *scorer.buffers(), *frozen], resizes=is_sharded(scorer)) as measured:
        for _ in range(2):
            _step(scorer, optimizer, batches[:1], dtype, reference)
        gc.collect()
        measured.peak = 0
        _step(scorer, optimizer, batches, dtype, reference)
    return measured.peak


KINDS = [
    *(("qwen2", adapter, checkpointing) for adapter in (None, ["all-linear"]) for checkpointing in (False, True)),
    ("qwen2", ["q_proj", "v_proj"], False),
    ("llama", None, False),
    ("llama", ["all-linear"], True),
]
"""Family, adapter, and whether layers are recomputed."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("family", "adapter", "checkpointing"), KINDS)
def test_a_device_alone_holds_what_is_estimated_to_a_tenth(
    family: str, adapter: list[str] | None, checkpointing: bool, dtype: torch.dtype
) -> None:
    model = build_model(family, adapter=adapter, checkpointing=checkpointing)
    estimate = estimate_memory(model, **step_shape(dtype))
    assert estimate.total == pytest.approx(_measure(Scorer(model), dtype), rel=0.1), estimate


@pytest.fixture
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    """This process as the first of several, whose exchanges allocate what real ones do and send nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield Ranks(size=request.param)
    dist.destroy_process_group()


def _shard(scorer: Any, model: Any, ranks: Ranks, dtype: torch.dtype) -> None:
    here = Device("cpu", torch.device("cpu"), "for a test")
    shard_module(scorer, layers_of(model), device=here, ranks=ranks, compute_dtype=dtype)


SPREAD = [
    *itertools.product([8], [None, ["all-linear"]], [False, True], [torch.float32, torch.bfloat16]),
    *((2, None, False, torch.float32), (2, ["all-linear"], True, torch.bfloat16)),
    *((4, None, True, torch.bfloat16), (4, ["all-linear"], False, torch.float32)),
]
"""Ranks, adapter, whether layers are recomputed, and the compute dtype."""


@pytest.mark.parametrize(("ranks", "adapter", "checkpointing", "dtype"), SPREAD, indirect=["ranks"], ids=str)
def test_a_device_of_several_under_fsdp2_holds_what_is_estimated_to_a_tenth(
    ranks: Ranks, adapter: list[str] | None, checkpointing: bool, dtype: torch.dtype
) -> None:
    model = build_model("qwen2", adapter=adapter, checkpointing=checkpointing)
    estimate = share_memory(model, devices=ranks.size, parallel="fsdp", **step_shape(dtype))
    scorer: Any = Scorer(model)
    _shard(scorer, model, ranks, dtype)
    assert estimate.total == pytest.approx(_measure(scorer, dtype), rel=0.1), estimate


def _summed(_, bucket):  # DDP reads annotations, and those of this file are text
    """A bucket as if summed in place: the fake exchange gives DDP nothing that it could wait for."""
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("adapter", [None, ["all-linear"]], ids=["full", "all"])
@pytest.mark.parametrize("ranks", [2], indirect=True)
@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated:FutureWarning")
def test_a_device_of_two_under_ddp_holds_what_is_estimated_to_a_tenth(
    ranks: Ranks, adapter: list[str] | None, dtype: torch.dtype
) -> None:
    model = build_model("qwen2", adapter=adapter, checkpointing=False)
    estimate = share_memory(model, devices=ranks.size, parallel="ddp", **step_shape(dtype))
    scorer = torch.nn.parallel.DistributedDataParallel(Scorer(model), **DATA_PARALLEL)
    scorer.register_comm_hook(None, _summed)
    assert estimate.total == pytest.approx(_measure(scorer, dtype), rel=0.1), estimate


@pytest.mark.parametrize("ref_dtype", [None, torch.bfloat16], ids=["as the policy", "bf16"])
@pytest.mark.parametrize("ranks", [1, 4], indirect=True)
def test_a_frozen_reference_costs_what_is_estimated_to_a_tenth(ranks: Ranks, ref_dtype: torch.dtype | None) -> None:
    """Of the whole, and of what it is more than without a reference."""
    model = build_model("qwen2", adapter=None, checkpointing=False)
    shape: dict[str, Any] = {"devices": ranks.size, "parallel": "fsdp", **step_shape(torch.float32)}
    without = share_memory(model, **shape)
    estimate = share_memory(model, **shape, has_frozen_reference=True, reference_dtype=ref_dtype)
    scorer, frozen = Scorer(model), Scorer(copy_of_start(model, ref_dtype))
    if ranks.size > 1:
        _shard(scorer, model, ranks, torch.float32)
        _shard(frozen, frozen.model, ranks, torch.float32)
    reference = FrozenReference(frozen)
    measured, alone = _measure(scorer, torch.float32, reference), _measure(scorer, torch.float32)
    assert estimate.total == pytest.approx(measured, rel=0.1), estimate
    assert estimate.total - without.total == pytest.approx(measured - alone, rel=0.1)


def test_ddp_holds_gradients_once_more_and_nothing_less() -> None:
    model = build_model("qwen2", adapter=None, checkpointing=False)
    alone = estimate_memory(model, tokens=64)
    shared = share_memory(model, devices=8, parallel="ddp", tokens=64)
    assert shared.total == alone.total + alone.gradients
    assert share_memory(model, devices=1, parallel="ddp", tokens=64) == alone


def test_a_step_of_seven_billion_weights_holds_what_is_estimated_to_a_tenth() -> None:
    """Qwen2.5-7B's shape with FakeTensors, which have shapes and no memory; two micro-batches in bf16, about 6 s."""
    generator = np.random.default_rng(0)
    groups = [build_group(generator, prompt=256, completions=(384, 384)) for _ in range(4)]
    batch = lay_out(groups, shared=True, pad_id=0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model: Any = Qwen2ForCausalLM(Qwen2Config(**SEVEN_BILLION)).train()
        model.activation_checkpointing_enable({"use_reentrant": False})
        scorer, weights = Scorer(model), list(model.parameters())
        moments = [torch.empty_like(weight) for weight in weights for _ in range(2)]
        with LiveBytes([*weights, *model.buffers(), *moments]) as measured:
            for _ in range(2):
                with torch.autocast("cpu", torch.bfloat16):
                    logps = scorer(batch).logps
                torch.nn.functional.logsigmoid(logps[::2] - logps[1::2]).sum().backward()
                del logps
    shape: dict[str, Any] = {"tokens": batch.input_ids.numel(), "row_tokens": batch.input_ids.shape[1]}
    estimate = estimate_memory(model, **shape, counted_tokens=len(batch.targets), compute_dtype=torch.bfloat16)
    assert count_parameters(model).total == 7_615_616_512
    assert estimate.total == pytest.approx(measured.peak, rel=0.1), estimate
