"""A model's identity: a hash of its weights and of what its forward reads from the configuration."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn


def weights_fingerprint(model: nn.Module) -> str:
    """Hash names, shapes, dtypes and every byte of parameters and buffers, and the configuration; sha256.

    Entries of the configuration that begin with an underscore (where it was loaded from) are left out.
    """
    digest = hashlib.sha256()
    config: Any = model.config
    public = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    digest.update(json.dumps(public, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy where it is contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
