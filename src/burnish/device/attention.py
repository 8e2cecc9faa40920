"""Which attention a model may bring along, or a run may ask for, on a device."""

from __future__ import annotations

from typing import Any

from burnish.device.pick import Device
from burnish.errors import ConfigError

FLEX = "flex_attention"
"""Transformers' name of torch's attention that is compiled for a block mask."""
BURNISH_FLEX = "burnish_flex"
"""What the model's configuration calls it once a scorer has it (scoring.flex_attention)."""
_INSTEAD = {
    "cpu": "the CPU already attends block by block without a dense mask",
    "npu": "its compiled kernel does not run on an NPU, whose fused operators have an attention of their own",
}


def check_flex_attention(attention: str | None, device: Device, *, deterministic: bool = False) -> None:
    """Refuse flex attention where its kernel does not train, or may not repeat itself.

    Args:
        attention: what was asked for; anything but flex attention passes.
        device: where the run computes.
        deterministic: whether it is to repeat itself exactly.

    Raises:
        ConfigError: one line with the reason and the cure.
    """
    if attention not in (FLEX, BURNISH_FLEX):
        return
    if device.kind in _INSTEAD:
        raise ConfigError(f"--attn_implementation {FLEX} is for CUDA; leave it out: {_INSTEAD[device.kind]}")
    if deterministic:
        raise ConfigError(
            f"--attn_implementation {FLEX} and --deterministic: its compiled kernels are not known to repeat "
            "themselves; leave one out"
        )


def check_attention(model: Any, device: Device, name: str, *, deterministic: bool = False) -> None:
    """Refuse a model whose attention would compute something else on the device without a word, or not at all.

    On an NPU, transformers' FlashAttention drops sliding windows.

    Args:
        model: a transformers model, or an adapter around one.
        device: where it is to run.
        name: of the argument that it came by.
        deterministic: whether the run is to repeat itself exactly.

    Raises:
        ConfigError: with the attention and the cure.
    """
    attention = str(getattr(model.config, "_attn_implementation", ""))
    if device.kind == "npu" and "flash" in attention:
        raise ConfigError(
            f"{name}: {attention} drops sliding windows on an NPU and says nothing; load the model with "
            'attn_implementation="sdpa".'
        )
    check_flex_attention(attention, device, deterministic=deterministic)
