"""Every sentence of the doctor, in English and Chinese side by side: what was found, and what to do about it."""

from __future__ import annotations

from burnish.device.doctor.messages.cann import CANN
from burnish.device.doctor.messages.hardware import HARDWARE
from burnish.device.doctor.messages.message import Language, Message
from burnish.device.doctor.messages.running import RUNNING
from burnish.device.doctor.messages.system import SYSTEM
from burnish.device.doctor.messages.torch_wheels import TORCH_WHEELS
from burnish.device.doctor.messages.variables import VARIABLES

MESSAGES: dict[str, Message] = {**SYSTEM, **HARDWARE, **CANN, **TORCH_WHEELS, **RUNNING, **VARIABLES}

__all__ = ["MESSAGES", "Language", "Message"]
