"""Which attention a model may bring along to a device."""

from __future__ import annotations

from typing import Any

from burnish.device.pick import Device
from burnish.errors import ConfigError


def check_attention(model: Any, device: Device, name: str) -> None:
    """Refuse a model whose attention would compute something else on the device, without a word.

    On an NPU, transformers' FlashAttention drops sliding windows.

    Args:
        model: a transformers model, or an adapter around one.
        device: where it is to run.
        name: of the argument that it came by.

    Raises:
        ConfigError: with the attention and the cure.
    """
    attention = str(getattr(model.config, "_attn_implementation", ""))
    if device.kind == "npu" and "flash" in attention:
        raise ConfigError(
            f"{name}: {attention} drops sliding windows on an NPU and says nothing; load the model with "
            'attn_implementation="sdpa".'
        )
