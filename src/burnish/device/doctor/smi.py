"""Reads the two tables of `npu-smi info`: chips, and processes on them.

Known forms: one chip a card (910B: `Chip | Bus-Id`), two dies a card (A3: `Chip Phy-ID | Bus-Id`), and a fifth column
of process ids inside containers (26.x). Every chip takes two lines, the second ending in its memory as `used / total`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOP = re.compile(r"^\|\s*(\d+)\s+(\S+)\s*\|\s*(\w+)\s*\|")
_BOTTOM = re.compile(r"^\|\s*(\d+)(?:\s+(\d+))?\s*\|\s*[0-9A-Fa-f]{4}:[0-9A-Fa-f:.]+\s*\|(.*)\|\s*$")
_PAIR = re.compile(r"(\d+)\s*/\s*(\d+)")
_PROCESS = re.compile(r"^\|\s*(\d+)\s+(\d+)\s*\|\s*(\d+)\s*\|\s*(\S.*?)\s*\|\s*(\d+)\s*\|")
_VERSION = re.compile(r"npu-smi\s+(\S+)\s+Version:\s*(\S+)")


@dataclass(frozen=True, slots=True)
class Chip:
    """One NPU as the framework counts them."""

    index: int
    """Its number for ASCEND_RT_VISIBLE_DEVICES."""
    card: int
    position: int
    """Number of the chip on its card."""
    name: str
    health: str
    used_mib: int
    total_mib: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds memory of a chip."""

    card: int
    position: int
    pid: int
    name: str
    mib: int


@dataclass(frozen=True, slots=True)
class SmiReport:
    """What npu-smi told."""

    version: str
    chips: tuple[Chip, ...]
    processes: tuple[Process, ...]


def read_smi(text: str) -> SmiReport:
    """Read the output of `npu-smi info`; no chips where its form is not known."""
    version = _VERSION.search(text)
    chips: list[Chip] = []
    processes: list[Process] = []
    top: re.Match[str] | None = None
    for line in text.splitlines():
        process = _PROCESS.match(line)
        bottom = _BOTTOM.match(line)
        if process:
            card, position, pid, name, mib = process.groups()
            processes.append(Process(int(card), int(position), int(pid), name, int(mib)))
        elif bottom and top:
            chips.append(_chip(top, bottom, len(chips)))
            top = None
        else:
            top = _TOP.match(line) or top
    return SmiReport(version.group(2) if version else "", tuple(chips), tuple(processes))


def _chip(top: re.Match[str], bottom: re.Match[str], order: int) -> Chip:
    card, name, health = top.groups()
    position, physical, columns = bottom.groups()
    pairs = [(int(used), int(total)) for used, total in _PAIR.findall(columns)]
    used, total = next((pair for pair in reversed(pairs) if pair[1]), (0, 0))
    index = int(physical) if physical is not None else order
    return Chip(index, int(card), int(position), name, health, used, total)
