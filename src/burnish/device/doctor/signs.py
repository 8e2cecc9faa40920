"""What a machine looks like from outside: is there an Ascend card, a GPU, a container around us?"""

from __future__ import annotations

import re
from pathlib import Path

from burnish.device.doctor.findings import Finding, skipped
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.packages import read_packages

_HUAWEI = "0x19e5"
_PROCESSING_ACCELERATOR = "0x1200"
"""PCI class of NPUs; the vendor's network cards and BMCs have others."""
CANN_PLACES = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/nnae/latest")
"""Where CANN lives: from 8.5 on in cann/, before in ascend-toolkit/latest; nnae is the run-time only package."""


def npu_nodes(machine: Machine) -> list[Path]:
    """List the device nodes of NPUs, in the order of their numbers."""
    nodes = [path for path in machine.glob("/dev/davinci*") if re.fullmatch(r"davinci\d+", path.name)]
    return sorted(nodes, key=lambda path: int(path.name.removeprefix("davinci")))


def npu_cards(machine: Machine) -> int:
    """Count Ascend cards on the PCI bus, which are there before any driver is."""
    vendors = machine.glob("/sys/bus/pci/devices/*/vendor")
    return sum(_is_npu(vendor) for vendor in vendors)


def _is_npu(vendor: Path) -> bool:
    try:
        if vendor.read_text().strip() != _HUAWEI:
            return False
        return (vendor.parent / "class").read_text().startswith(_PROCESSING_ACCELERATOR)
    except OSError:
        return False


def ascend_absent(machine: Machine) -> Finding | None:
    """Give the reason to skip an Ascend check; None where Ascend is wanted, or hinted at by anything."""
    if machine.wanted in ("cuda", "cpu"):
        return skipped("skip.other_device", device=machine.wanted)
    if machine.wanted == "npu" or machine.once(_hints_at_ascend):
        return None
    return skipped("skip.no_ascend")


def _hints_at_ascend(machine: Machine) -> bool:
    return bool(
        npu_nodes(machine)
        or npu_cards(machine)
        or machine.path("/usr/local/Ascend").is_dir()
        or machine.variable("ASCEND_HOME_PATH")
        or machine.variable("ASCEND_TOOLKIT_HOME")
        or machine.once(read_packages).version("torch_npu")
    )


def gpu_absent(machine: Machine) -> Finding | None:
    """Give the reason to skip a GPU check; None where one is wanted or hinted at."""
    if machine.wanted in ("npu", "cpu"):
        return skipped("skip.other_device", device=machine.wanted)
    hinted = machine.glob("/dev/nvidia[0-9]*") or machine.path("/proc/driver/nvidia/version").exists()
    return None if machine.wanted == "cuda" or hinted else skipped("skip.no_gpu")


def in_container(machine: Machine) -> bool:
    """Whether this looks like the inside of a container."""
    marks = ("/.dockerenv", "/run/.containerenv")
    if any(machine.path(mark).exists() for mark in marks):
        return True
    return bool(re.search(r"docker|kubepods|containerd|lxc", machine.text("/proc/1/cgroup")))
