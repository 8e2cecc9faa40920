"""Checks of what lies under everything: Python, the C library, the kernel."""

from __future__ import annotations

from burnish.device.doctor.findings import Finding, failure, ok, skipped, warning
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.packages import read_packages
from burnish.device.doctor.signs import ascend_absent
from burnish.device.doctor.versions import LOWEST_GLIBC, release

_LOWEST_PYTHON = (3, 11)
_HIGHEST_PYTHON_OF_TORCH_NPU = (3, 14)
_ACCELERATE_WARNS_BELOW = (5, 5)


def check_python(machine: Machine) -> Finding:
    """The interpreter is one that burnish and torch_npu have wheels for."""
    packages = machine.once(read_packages)
    if packages.problem:
        return failure("packages.unread", python=machine.python, error=packages.problem)
    version = ".".join(map(str, packages.python))
    if packages.python[:2] < _LOWEST_PYTHON:
        return failure("python.old", version=version)
    if packages.python[:2] > _HIGHEST_PYTHON_OF_TORCH_NPU and ascend_absent(machine) is None:
        return failure("python.no_wheel", version=version)
    return ok("python.ok", version=version, processor=machine.processor)


def check_libc(machine: Machine) -> Finding:
    """The wheels of torch and torch_npu want glibc 2.28 or newer."""
    if not machine.kernel:
        return skipped("skip.not_linux")
    name, version = machine.libc
    if name != "glibc":
        return warning("libc.other")
    found = release(version)[:2]
    return failure("libc.old", version=version) if found < LOWEST_GLIBC else ok("libc.ok", version=version)


def check_kernel(machine: Machine) -> Finding:
    """The kernel's release, and the notice of accelerate that goes with an old one."""
    if not machine.kernel:
        return skipped("skip.not_linux")
    old = release(machine.kernel)[:2] < _ACCELERATE_WARNS_BELOW
    return ok("kernel.old" if old else "kernel.ok", release=machine.kernel)
