"""Real values for every aten operator that the vendor registered for the device: the same operator on the host's CPU.

What has no kernel in the wheel has none here either: it is composed, or falls back to the CPU as on a real device
(which TORCH_NPU_FALLBACK_CPU_DISABLE=1 turns into an error).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from npu.simulator.host_view import host_view, host_views, is_on_device, to_devices
from npu.simulator.log import LAUNCHED
from npu.simulator.refusals import refuse

KEY = "PrivateUse1"
_LIBRARIES: list[torch.library.Library] = []
_VENDORS_OWN = (
    *("empty", "set_", "resize_", "record_stream", "as_strided", "view", "_reshape_alias", "unfold", "_copy_from"),
    *("is_pinned", "_pin_memory", "npu_", "_has_compatible", "_local_scalar"),
)
"""Beginnings of names that allocate, view or cross to the host: the wheel's own code does them right here."""


def install_aten_kernels() -> None:
    """Give every registered aten kernel of the device the host's values."""
    library = torch.library.Library("aten", "IMPL")
    _LIBRARIES.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each registration replaces the vendor's
        for name, operator in _registered():
            library.impl(name, _on_host(operator), KEY, allow_override=True)


def _registered() -> Iterator[tuple[str, Any]]:
    for full in torch._C._dispatch_get_registrations_for_dispatch_key(KEY):
        namespace, name = full.split("::")
        base, _, overload = name.partition(".")
        if namespace != "aten" or base.startswith(_VENDORS_OWN):
            continue
        operator = getattr(getattr(torch.ops.aten, base, None), overload or "default", None)
        if operator is not None and not _is_view(operator):
            yield name, operator


def _is_view(operator: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in operator._schema.returns)


def _on_host(operator: Any) -> Callable[..., Any]:
    arguments = operator._schema.arguments
    names = [argument.name for argument in arguments]
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    returns = operator._schema.returns
    gives_written = bool(written) and bool(returns) and all(r.alias_info is not None for r in returns)
    makes_device = "device" in names
    base = operator.name().split("::")[1].split(".")[0]
    is_random = torch.Tag.nondeterministic_seeded in operator.tags

    def kernel(*args: Any, **keywords: Any) -> Any:
        LAUNCHED[operator.name()] += 1
        given = dict(zip(names, args, strict=False)) | keywords
        refuse(base, given)
        device = _device_of(given)
        asked = given.get("device")
        to_host = asked is not None and torch.device(asked).type != "npu"
        host = host_views(given)
        if makes_device:
            host["device"] = torch.device("cpu")
        host.pop("pin_memory", None)
        with _device_randomness(host, device) if is_random else _nothing():
            result = _call(operator, host)
        if written:
            _write_back(given, host, written)
        if gives_written:
            return given[written[0]] if len(returns) == 1 else tuple(given[name] for name in written)
        return result if to_host or not returns else to_devices(result, device)

    return kernel


def _npu() -> Any:
    return torch.npu  # pyright: ignore[reportAttributeAccessIssue] (the vendor adds it)


def _call(operator: Any, given: dict[str, Any]) -> Any:
    positional = [a.name for a in operator._schema.arguments if not a.kwarg_only and a.name in given]
    named = {name: value for name, value in given.items() if name not in positional}
    return operator(*(given[name] for name in positional), **named)


def _device_of(given: Any) -> torch.device:
    asked = given.get("device")
    if asked is not None and torch.device(asked).type == "npu":
        device = torch.device(asked)
        return device if device.index is not None else torch.device("npu", _npu().current_device())
    for leaf in tree_leaves(given):
        if is_on_device(leaf):
            return leaf.device
    return torch.device("npu", _npu().current_device())


def _write_back(given: dict[str, Any], host: dict[str, Any], written: list[str]) -> None:
    """Values went through the shared bytes already; what an `out` operator resized is brought over."""
    for name in written:
        target, values = given.get(name), host.get(name)
        if isinstance(target, Tensor) and isinstance(values, Tensor) and values.shape != target.shape:
            target.resize_(values.shape)
            host_view(target).copy_(values)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _device_randomness(host: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Draw from the device's generator (its seed and offset) and leave the host's generator as it was."""
    own = host.pop("generator", None) or _npu().default_generators[device.index]
    seed, offset = own.initial_seed(), own.get_offset()
    own.set_offset(offset + 4)
    before = torch.random.get_rng_state()
    torch.random.manual_seed((seed * 1_000_003 + offset * 7919) % 2**63)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
