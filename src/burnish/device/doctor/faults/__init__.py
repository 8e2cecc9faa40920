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

HINTS = (
    *("err", "fail", "exception", "cannot", "warn", "undefined symbol", "no attribute", "inner"),
    *("time out", "times out", "timeout", "timed out", "in use", "out of memory", "allocate", "heartbeat", "ret is"),
    *("not compiled", "not set", "not exist", "not found", "not in lib", "not support", "not implemented", "too old"),
    *(
        "insufficient",
        "kernel version",
        "fall",
        "fused",
        "alloc_conf",
        "dcmi",
        "aclset",
        "acl_",
        "dt_double",
        "ei0",
        "ei1",
        "ei2",
        "ei9",
        "ez",
    ),
    *("507", "8020", "8005", "500001", "561103", "207018", "107020", "e30006", "9999"),
)
"""A line that has none of these words holds no known text; that clears most lines of a log at little cost."""

__all__ = ["FAULTS", "HINTS", "Fault"]
