"""Every error text that the doctor knows: its cause and its cure.

The order is the order of judgement: where one line fits several, the first one explains it, so that particular texts
stand before the generic ones that follow them in a log.
"""

from __future__ import annotations

from burnish.device.doctor.faults.fault import Fault
from burnish.device.doctor.faults.generic import GENERIC
from burnish.device.doctor.faults.installing import INSTALLING
from burnish.device.doctor.faults.ranks import RANKS
from burnish.device.doctor.faults.running import RUNNING

FAULTS: tuple[Fault, ...] = (*INSTALLING, *RANKS, *RUNNING, *GENERIC)

__all__ = ["FAULTS", "Fault"]
