"""What a real NPU refuses and the host's CPU would not: dtypes without a kernel, tensors of two devices in one call.

The dtypes are those that the vendor's documents of torch 2.13 leave out, and float64, unsupported or very slow there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

COPIES = frozenset({"copy_", "_copy_from", "_to_copy", "_foreach_copy_", "set_", "_copy_from_and_resize"})
"""What may read one device and write another, and what may carry a dtype that nothing computes in."""
MAKERS = frozenset({"empty", "empty_strided", "empty_like", "new_empty"})
TAKES_HOST_INDICES = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
TAKES_NO_SCALE = frozenset({"_fused_adamw_"})
"""What has no use for a gradient scaler's tensors there."""
NO_BFLOAT16 = frozenset(
    {"logsumexp", "gather", "cumsum", "index_add", "index_add_", "sort", "argsort", "multinomial", "histc"}
)
_NOT_COMPUTED = frozenset({torch.float64, torch.complex128})


def denied_dtypes(name: str, dtypes: set[torch.dtype]) -> set[torch.dtype]:
    """Those of the dtypes that an operator (by its name without overload) has no kernel for on the card."""
    denied = {torch.bfloat16} if name in NO_BFLOAT16 else set[torch.dtype]()
    return dtypes & (denied if name in MAKERS else denied | _NOT_COMPUTED)


def refuse_dtypes(name: str, tensors: list[Tensor], dtype: Any) -> None:
    """Raise as the vendor's stack does where an operator has no kernel for a dtype."""
    asked = {tensor.dtype for tensor in tensors if tensor.device.type == "npu"} | ({dtype} if dtype else set())
    denied = denied_dtypes(name, asked)
    if denied & _NOT_COMPUTED:
        raise RuntimeError(f"{name} not implemented for DT_DOUBLE (float64 on the simulated NPU)")
    if denied:
        raise RuntimeError(f"{name} not implemented for DT_BFLOAT16 (the vendor's documents list no bfloat16)")


def refuse_mixes(name: str, tensors: list[Tensor]) -> None:
    """Raise where tensors of two devices meet; a number in a tensor without axes may come from the host."""
    if name in COPIES or name in TAKES_HOST_INDICES:
        return
    places = {tensor.device for tensor in tensors if tensor.dim() > 0}
    if len(places) > 1:
        first, second = sorted(map(str, places))[:2]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {first} and {second}! "
            f"(in {name})"
        )


def refuse(name: str, args: Any) -> None:
    """Refuse a call by its operator's name (without overload) and its arguments."""
    leaves = tree_leaves(args)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    dtypes = [leaf for leaf in leaves if isinstance(leaf, torch.dtype)]
    if name in TAKES_NO_SCALE and (args.get("grad_scale") is not None or args.get("found_inf") is not None):
        raise RuntimeError(f"{name}: grad_scale and found_inf are not supported")
    refuse_mixes(name, tensors)
    refuse_dtypes(name, tensors, dtypes[0] if dtypes else None)
