"""The processes of one run: who this one is, how they wait for each other, and what they agree on.

Two ways to talk. On the host, over gloo or the launcher's store, without touching the device: decisions, names, small
tables. On the device, over the backend that belongs to it: sums of tensors. A run of one process has the same object,
and nothing is sent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from burnish.device.pick import Device

BACKENDS = {"npu": "hccl", "cuda": "nccl", "cpu": "gloo"}
"""Which collective library belongs to a device."""
PREPARATION_TIMEOUT = timedelta(hours=24)
"""How long ranks wait for the first one to prepare data; tokenising millions of rows takes hours."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for others within a step or a checkpoint."""


@dataclass(slots=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    """Place among all processes, from 0."""
    size: int = 1
    """Processes of the run."""
    local_rank: int = 0
    """Place among the processes of this machine; also the number of its device."""
    local_size: int = 1
    """Processes of this machine."""
    _store: Any = None
    _host: Any = None
    """Group for host decisions (gloo); None before `connect` and where there is one rank."""
    _spoken: list[str] = field(default_factory=list)

    @property
    def is_main(self) -> bool:
        """Whether this process prints, logs and owns the run directory."""
        return self.rank == 0

    @property
    def is_local_main(self) -> bool:
        """Whether this process does what a machine does once, such as preparing data."""
        return self.local_rank == 0

    @property
    def machine(self) -> int:
        """Number of the machine, from 0."""
        return self.rank // self.local_size

    def connect(self, device: Device) -> None:
        """Join the process group of the device, and one on the host; a second call finds both."""
        if self.size == 1 or self._host is not None:
            return
        if not dist.is_initialized():
            dist.init_process_group(
                BACKENDS[device.kind],
                store=PrefixStore("burnish/group", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=COLLECTIVE_TIMEOUT,
            )
        self._host = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def once_a_machine(self, name: str, make: Callable[[], Any]) -> Any:
        """Let one process of each machine make something while the others wait; all get its description.

        Works before `connect`: it goes through the launcher's store, and no device is touched.

        Args:
            name: what is made; a name may be used again, in the same order on all ranks.
            make: returns something that JSON can hold.
        """
        return self._told(f"{name}/{self.machine}", make, speaks=self.is_local_main)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Let rank 0 decide something while the others wait, as in once_a_machine."""
        return self._told(name, make, speaks=self.is_main)

    def agree(self, values: Sequence[float]) -> list[float]:
        """The greatest of each value over all ranks, on the host; every rank calls it with as many.

        A flag that any rank raises is raised for all: that is how ranks stop, save or evaluate at one step.
        """
        if self.size == 1:
            return list(values)
        packed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(packed, op=dist.ReduceOp.MAX, group=self._host)
        return packed.tolist()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, on its device; the argument is left as it was."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """One object of each rank, in order, on every rank; on the host, so for small or rare things."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value, group=self._host)
        return gathered

    def share(self, value: Any) -> Any:
        """Rank 0's object on every rank; what the others pass is not looked at."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._host)
        return box[0]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier(group=self._host)

    def _told(self, name: str, make: Callable[[], Any], *, speaks: bool) -> Any:
        if self.size == 1:
            return make()
        key = f"burnish/{name}/{self._spoken.count(name)}"
        self._spoken.append(name)
        if speaks:
            value = make()
            self._store.set(key, json.dumps(value))
            return value
        self._store.wait([key], PREPARATION_TIMEOUT)
        return json.loads(self._store.get(key))


_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "pair closure")
"""How gloo says that the process at the other end is gone."""


def lost_contact(error: BaseException | None) -> bool:
    """Whether an error, or its cause, only says that another rank is gone; that rank's own error is the one to read."""
    while error is not None:
        if isinstance(error, dist.DistError):
            return True
        if isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST):
            return True
        error = error.__cause__
    return False


_joined: list[Ranks] = []


def join_ranks() -> Ranks:
    """This process's place by the launcher's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, …).

    A second run in one process is given the same object: process groups live as long as the process.
    """
    if not _joined:
        _joined.append(_read_environment())
    return _joined[0]


def leave_ranks() -> None:
    """Close the process groups of a process that was started as one of several; after it, none can be used."""
    if _joined and dist.is_initialized():
        dist.destroy_process_group()
    _joined.clear()


def _read_environment() -> Ranks:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    store, rank, size = next(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # torchrun --max-restarts hands the same store to the ranks that it starts again: what the first ones have left
        # there would be taken for their answers. (On several machines attempts are not counted alike, and
        # --rdzv-backend c10d makes a new store for each.)
        store = PrefixStore(f"burnish/attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return Ranks(
        rank=rank,
        size=size,
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", str(size))),
        _store=store,
    )
