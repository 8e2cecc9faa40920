"""Records which operators meet a device, and with which dtypes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
