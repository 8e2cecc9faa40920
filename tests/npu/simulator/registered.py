"""Which operators the vendor's wheel has kernels for, remembered before the stand-in's take their places."""

from __future__ import annotations

COMPOSED = ("CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
"""Keys of torch's own kernels that are made of other operators, on every device."""
KEYS = ("PrivateUse1", "AutogradPrivateUse1", *COMPOSED)
_REGISTERED: dict[str, frozenset[str]] = {}


def remember_the_wheels() -> None:
    """Note what is registered now; the hook calls it once torch_npu is imported and nothing is replaced yet."""
    import torch

    listed = torch._C._dispatch_get_registrations_for_dispatch_key
    _REGISTERED.update({key: frozenset(listed(key)) for key in KEYS})


def registered(key: str) -> frozenset[str]:
    """Operators (aten::mm, aten::add.Tensor) with a kernel of the wheel's or torch's own under one of KEYS."""
    if not _REGISTERED:  # a real card: nothing takes the wheel's place
        remember_the_wheels()
    return _REGISTERED[key]


def without_kernel(operators: set[str]) -> list[str]:
    """Those that the wheel has no kernel for and that are not composed: on a card they would run on the host."""
    return sorted(operators - registered("PrivateUse1") - frozenset().union(*map(registered, COMPOSED)))
