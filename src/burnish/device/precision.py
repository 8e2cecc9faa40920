"""Compute precision: what a device has, and what a run uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from burnish.device.pick import Device
from burnish.errors import ConfigError

_UNFUSED = {"npu": ", and AdamW is not fused: its kernel takes no scale", "cuda": ""}
PrecisionName = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Precision:
    """Compute dtype over float32 master weights."""

    name: PrecisionName
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    @property
    def accelerate_name(self) -> str:
        """What accelerate calls it."""
        return "no" if self.name == "fp32" else self.name


def choose_precision(requested: str, device: Device) -> Precision:
    """Resolve auto: bf16 where the accelerator has it, fp16 where it has only that, float32 on the CPU.

    Raises:
        ConfigError: the device lacks what was asked for.
    """
    if requested == "auto":
        if not device.is_accelerator:
            return Precision("fp32", "the CPU's default")
        if has_bf16(device):
            return Precision("bf16", f"{device.kind} has it")
        return Precision("fp16", f"this {device.kind} has no bf16; losses are scaled{_UNFUSED[device.kind]}")
    if requested == "bf16" and not has_bf16(device):
        raise ConfigError(f"--precision bf16: this {device.kind} has no bfloat16. Use --precision fp16 or fp32.")
    if requested == "fp16" and not device.is_accelerator:
        raise ConfigError("--precision fp16: not on the CPU. Use --precision bf16 or fp32.")
    names: dict[str, PrecisionName] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    scaled = f"; losses are scaled{_UNFUSED[device.kind]}" if requested == "fp16" else ""
    return Precision(names[requested], f"as asked{scaled}")


def has_bf16(device: Device) -> bool:
    """Whether the device computes in bfloat16."""
    if device.kind == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.kind == "npu":
        npu: Any = torch.npu  # pyright: ignore[reportAttributeAccessIssue]
        return bool(npu.is_bf16_supported())
    return True
