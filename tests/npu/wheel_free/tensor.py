"""A tensor of the wheel-free device: to torch it is on `npu`, and its values are those of a CPU tensor that it holds.

Every operator that reaches the device is refused as a card would refuse it, counted, and computed on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from npu.simulator.log import LAUNCHED
from npu.simulator.refusals import refuse
from npu.wheel_free.card import CARD

_LIBRARIES: list[torch.library.Library] = []
_HALVED = ("mm", "matmul", "bmm", "addmm", "baddbmm", "linear", "scaled_dot_product_attention")
"""What autocast computes in half precision; of the vendor's longer list, what the models of tests use."""


class NpuTensor(torch.Tensor):
    """A tensor whose device is npu:N; operators on it arrive below autograd and autocast."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor, index: int) -> NpuTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=torch.device("npu", index),
        )
        made.host = host
        CARD.hold(host)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return launch(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"tensor({self.host}, device='{self.device}')"

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    def tolist(self) -> Any:
        return self.host.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")


def install_tensors() -> None:
    """Let torch make tensors on the device, copy to them and from them, and compute with them."""
    aten, everything = (torch.library.Library(name, "IMPL") for name in ("aten", "_"))
    _LIBRARIES.extend((aten, everything))
    for operator in _makers():
        aten.impl(operator.name().removeprefix("aten::"), _maker(operator), "PrivateUse1")
    aten.impl("_copy_from", _copy_from, "PrivateUse1")
    everything.fallback(lambda operator, *args, **kwargs: launch(operator, args, kwargs), "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in _HALVED:
        aten.impl(name, _halved(getattr(torch.ops.aten, name).default), "AutocastPrivateUse1")


def launch(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute one operator of the device; what it writes is written, what it makes is on the device."""
    names = [argument.name for argument in operator._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    inputs = [leaf for leaf in tree_leaves(given) if isinstance(leaf, NpuTensor)]
    asked = given.get("device")
    to_device = bool(inputs) if asked is None else torch.device(asked).type == "npu"
    LAUNCHED[operator.name()] += 1
    # What is brought to the host may be cast there.
    refuse(operator.name().split("::")[1].split(".")[0], given if to_device else {**given, "dtype": None})
    host_args, host_kwargs = tree_map_only(NpuTensor, lambda tensor: tensor.host, (args, kwargs))
    if to_device and asked is not None:
        host_kwargs["device"] = torch.device("cpu")
    host_kwargs.pop("pin_memory", None)
    is_random = torch.Tag.nondeterministic_seeded in operator.tags
    with CARD.drawing() if is_random else nullcontext():
        result = operator(*host_args, **host_kwargs)
    known: dict[int, Tensor] = {id(tensor.host): tensor for tensor in inputs}
    index = inputs[0].device.index if inputs else CARD.index

    def back(host: Tensor) -> Tensor:
        """What was written is the tensor that was given."""
        if id(host) in known:
            return known[id(host)]
        return NpuTensor(host, index) if to_device else host

    return tree_map_only(Tensor, back, result)


def _makers() -> list[Any]:
    """What makes a tensor of no other; of those that torch composes, those that would make it empty and let it grow."""
    composed = [(name, overload) for name in ("eye", "arange", "linspace") for overload in _overloads_of(name)]
    first = [("empty", "memory_format"), ("empty_strided", "default")]
    return [getattr(getattr(torch.ops.aten, name), overload) for name, overload in (*first, *composed)]


def _overloads_of(name: str) -> list[str]:
    packet = getattr(torch.ops.aten, name)
    return [each for each in packet.overloads() if not getattr(packet, each)._schema.is_mutable]


def _maker(operator: Any) -> Callable[..., Any]:
    names = [argument.name for argument in operator._schema.arguments]

    def make(*args: Any, **kwargs: Any) -> NpuTensor:
        given = dict(zip(names, args, strict=False)) | kwargs
        dtype = given.get("dtype") or torch.get_default_dtype()
        CARD.ask_for(math.prod(given.get("size", ())) * dtype.itemsize)  # before the host is asked for as much
        given.pop("pin_memory", None)
        return NpuTensor(operator(**{**given, "device": torch.device("cpu")}), CARD.index)

    return make


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    ends = (tensor.host if isinstance(tensor, NpuTensor) else tensor for tensor in (source, target))
    refuse("_copy_from", {"self": source, "dst": target})
    copied, written = ends
    written.copy_(copied)
    return target


def _halved(operator: Any) -> Callable[..., Any]:
    """The operator with its float32 inputs cast, as autocast does it on any device."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype("npu")
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)  # pyright: ignore[reportAttributeAccessIssue]
        with torch._C._ExcludeDispatchKeyGuard(keys):
            cast = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs))
            return operator(*cast[0], **cast[1])

    return compute
