"""Record which operators meet a device, with which dtypes, and which of them are fused ones."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from npu.simulator.refusals import denied_dtypes

OF_OPERATOR = {
    "attention": "npu::npu_fusion_attention",
    "cross_entropy": "npu::npu_cross_entropy_loss_backward",
    "rms_norm": "npu::npu_rms_norm",
    "rotary": "npu::npu_rotary_mul",
    "swiglu": "npu::npu_swiglu",
}


class OperatorRecorder(TorchDispatchMode):
    """Sees every operator below autograd that takes or gives a tensor of one kind of device, backward passes too."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.dtypes: defaultdict[str, set[torch.dtype]] = defaultdict(set)
        """Operator with overload → dtypes of its tensors on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        met = {tensor.dtype for tensor in tensors if tensor.device.type == self.kind}
        if met:
            self.dtypes[func.name()] |= met
        return result


def denied(record: OperatorRecorder) -> dict[str, set[torch.dtype]]:
    """Operators, without their overload, that met dtypes which the card has no kernel for."""
    found: dict[str, set[torch.dtype]] = {}
    for name, dtypes in record.dtypes.items():
        base = name.split("::")[1].split(".")[0]
        if denied_dtypes(base, dtypes):
            found[base] = found.get(base, set()) | denied_dtypes(base, dtypes)
    return found


class FusedCalls(TorchDispatchMode):
    """Sees which fused operators a model calls, one with fewer key heads than query heads.

    torch's own sdpa arrives at the vendor's attention too, with key heads copied for every query head: a call that
    shares them is ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.key_heads: list[int] = []
        """Of each call of the vendor's attention."""
        self.operators: set[str] = set()
        """By burnish's names."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name == OF_OPERATOR["attention"]:
            query, key = args[:2]
            self.key_heads.append(key.shape[1])
            if key.shape[1] == query.shape[1]:
                name = "sdpa"
        self.operators |= {operator for operator, kernel in OF_OPERATOR.items() if kernel == name}
        return func(*args, **(kwargs or {}))
