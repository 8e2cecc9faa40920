"""The hccl backend over gloo: every collective runs on CPU views of the device tensors, between real processes.

Collectives are synchronous: they show that ranks agree and what is exchanged, nothing about overlap, order or speed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only

from npu.simulator.host_view import host_view, is_on_device
from npu.simulator.log import LAUNCHED

COLLECTIVES = (
    *("allreduce", "allreduce_coalesced", "broadcast", "reduce", "barrier", "gather", "scatter", "send", "recv"),
    *("allgather", "_allgather_base", "alltoall", "alltoall_base", "reduce_scatter", "_reduce_scatter_base"),
)
OF_SEVERAL = {
    "allgather_into_tensor_coalesced": "_allgather_base",
    "reduce_scatter_tensor_coalesced": "_reduce_scatter_base",
}
"""Collectives over lists of tensors, which gloo has over one: what sharded tensors are put together with."""
NEWER_NAMES = {
    "all_gather_single": "_allgather_base",
    "reduce_scatter_single": "_reduce_scatter_base",
    "all_to_all_single": "alltoall_base",
}


LOSSES_VARIABLE = "SIMULATED_NPU_LOSES_SUMS"
"""Where it is set, sums return without an error and leave the tensors as they were: a broken link between cards."""


class SimulatedHccl(dist.ProcessGroup):
    """A process group of device tensors; each collective is gloo's, and logged as hccl::NAME."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)  # pyright: ignore[reportCallIssue]
        self._rank, self._size = rank, size
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout)
        self._name, self._description = "", "undefined"

    def getBackendName(self) -> str:
        return "hccl"

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return self._rank

    @property
    def pg_name(self) -> str:
        return self._name or "hccl"

    @property
    def group_name(self) -> Any:
        return self._name or dist.distributed_c10d._world.pg_names.get(self, "0")

    def _set_group_name(self, name: str) -> None:
        self._name = name

    @property
    def group_desc(self) -> str:
        return self._description

    def _set_group_desc(self, desc: str) -> None:
        self._description = desc

    @property
    def bound_device_id(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


def _on_gloo(name: str) -> Callable[..., Any]:
    def collective(self: SimulatedHccl, *args: Any, **keywords: Any) -> Any:
        LAUNCHED[f"hccl::{name}"] += 1
        if name == "allreduce" and LOSSES_VARIABLE in os.environ:
            args = ([tensor.clone() for tensor in args[0]], *args[1:])
        args, keywords = tree_map_only(
            Tensor, lambda t: host_view(t) if is_on_device(t) else t.detach(), (args, keywords)
        )
        work = getattr(self._gloo, name)(*args, **keywords)
        work.wait()
        return work

    return collective


def _one_by_one(name: str) -> Callable[..., Any]:
    def collective(self: SimulatedHccl, outputs: list[Tensor], inputs: list[Tensor], *options: Any) -> Any:
        each = getattr(self, name)
        return [each(output, given, *options) for output, given in zip(outputs, inputs, strict=True)][-1]

    return collective


def install_hccl() -> None:
    """Put the simulated process group in the place of the vendor's."""
    for name, of_one in OF_SEVERAL.items():
        setattr(SimulatedHccl, name, _one_by_one(of_one))
    for name in COLLECTIVES:
        setattr(SimulatedHccl, name, _on_gloo(name))
    for name, old in NEWER_NAMES.items():
        setattr(SimulatedHccl, name, _on_gloo(old))
    dist.Backend._plugins["HCCL"] = dist.Backend._BackendPlugin(SimulatedHccl, False)
