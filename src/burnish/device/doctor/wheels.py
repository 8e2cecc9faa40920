"""Checks of the wheels: which torch, which torch_npu, and whether they and CANN belong together."""

from __future__ import annotations

from burnish.device.doctor.cann import find_cann
from burnish.device.doctor.findings import Finding, failure, ok, skipped, warning
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.packages import read_packages
from burnish.device.doctor.signs import ascend_absent, gpu_absent
from burnish.device.doctor.versions import (
    LOWEST_TORCH,
    NEWEST_LISTED_CANN,
    UNLISTED_FROM,
    listed_cann,
    release,
)


def check_torch_wheel(machine: Machine) -> Finding:
    """Torch is there, new enough, and built for this machine: the CPU build on Ascend, the CUDA build with a GPU."""
    packages = machine.once(read_packages)
    if packages.problem:
        return failure("packages.unread", python=machine.python, error=packages.problem)
    version, build = packages.version("torch"), packages.torch_build or "CPU"
    if not version:
        return failure("wheel.missing")
    if release(version)[:2] < LOWEST_TORCH:
        return failure("wheel.old", version=version)
    beside_npu = packages.version("torch_npu") and ascend_absent(machine) is None
    if build != "CPU" and beside_npu:
        plain = ".".join(map(str, release(version)))
        return failure("wheel.two_accelerators", version=version, build=build, release=plain)
    if build == "CPU" and gpu_absent(machine) is None and not beside_npu:
        return warning("wheel.cpu_on_gpu", version=version)
    return ok("wheel.ok", version=version, build=build)


def check_pair(machine: Machine) -> Finding:
    """Torch and torch_npu carry the same release."""
    if skip := ascend_absent(machine):
        return skip
    packages = machine.once(read_packages)
    torch, torch_npu = packages.version("torch"), packages.version("torch_npu")
    if not torch:
        return skipped("skip.earlier")
    ours, theirs = release(torch), release(torch_npu)
    plain = ".".join(map(str, ours))
    if not torch_npu:
        return failure("pair.none", release=plain)
    if ours[:2] != theirs[:2]:
        npu_release = ".".join(map(str, theirs))
        return failure("pair.mismatch", torch=torch, torch_npu=torch_npu, release=plain, npu_release=npu_release)
    if ours[:3] != theirs[:3]:
        return warning("pair.patch", torch=torch, torch_npu=torch_npu, release=plain)
    return ok("pair.ok", torch=torch, torch_npu=torch_npu)


def check_listed(machine: Machine) -> Finding:
    """CANN is the one that the vendor lists for this torch_npu."""
    if skip := ascend_absent(machine):
        return skip
    cann = machine.once(find_cann)
    torch_npu = machine.once(read_packages).version("torch_npu")
    if cann is None or not cann.version or not torch_npu:
        return skipped("listed.no_version")
    have = release(cann.version)[:2]
    names = {"cann": cann.version, "torch_npu": torch_npu}
    listed = listed_cann(torch_npu)
    if listed is None:
        return _unlisted(torch_npu, have, names)
    lowest, highest = (release(one)[:2] for one in listed)
    said = listed[0] if listed[0] == listed[1] else f"{listed[0]}-{listed[1]}"
    if have < lowest:
        # No failure: whether the two work together all the same, the import and --smoke tell.
        return warning("listed.older", listed=said, **names)
    return warning("listed.newer", listed=said, **names) if have > highest else ok("listed.ok", **names)


def _unlisted(torch_npu: str, have: tuple[int, ...], names: dict[str, str]) -> Finding:
    if release(torch_npu)[:2] < UNLISTED_FROM:
        return skipped("listed.unknown", torch_npu=torch_npu)
    if have < release(NEWEST_LISTED_CANN):
        return warning("listed.older", listed=NEWEST_LISTED_CANN, **names)
    return ok("listed.not_yet", **names)
