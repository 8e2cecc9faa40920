"""Weights in the compute dtype, cast once a step: master weights stay float32, and gradients go to them.

Autocast casts every weight anew in every micro-batch, and once more for its gradient. A copy made here serves all
micro-batches of a step; one of weights that no step moves serves the whole run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_COPIES: Any = WeakTensorKeyDictionary()
"""Weight → (its version, the copy); a weight that goes takes its copy along."""


def compute_copy(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in a dtype, without gradient; the same tensor until the weight's version changes or it is forgotten.

    A fused AdamW and writes through `.data` leave the version as it is: whoever begins a step or an evaluation calls
    `forget_compute_copies`.
    """
    if weight.dtype == dtype:
        return weight.detach()
    version, copy = _COPIES.get(weight, (None, None))
    if copy is None or version != weight._version or copy.dtype != dtype:
        copy = weight.detach().to(dtype)
        _COPIES[weight] = (weight._version, copy)
    return copy


def forget_compute_copies(*, trainable_only: bool = False) -> None:
    """Free copies; the next use makes them anew.

    Args:
        trainable_only: keep those of frozen weights.
    """
    for weight in list(_COPIES.keys()):
        if weight.requires_grad or not trainable_only:
            del _COPIES[weight]
