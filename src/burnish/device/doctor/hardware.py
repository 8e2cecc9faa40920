"""Checks of the card itself: device nodes, npu-smi, driver files, and NVIDIA's side of the same."""

from __future__ import annotations

import re

from burnish.device.doctor.explain import explain_line
from burnish.device.doctor.findings import Finding, failure, ok, skipped, warning
from burnish.device.doctor.machine import Machine, Outcome
from burnish.device.doctor.packages import last_line
from burnish.device.doctor.signs import ascend_absent, gpu_absent, in_container, npu_cards, npu_nodes
from burnish.device.doctor.smi import Chip, Process, SmiReport, read_smi

_MANAGERS = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
_SMI_PLACES = ("npu-smi", "/usr/local/bin/npu-smi", "/usr/local/sbin/npu-smi")
_SECONDS = 20
_BUSY_SHARE = 0.2
"""A card at rest shows about 5 % of its HBM as used (3.3 of 64 GiB)."""
_BUSY_MIB = 1024
"""Monitoring agents hold a few hundred MiB and disturb nobody."""


def check_nodes(machine: Machine) -> Finding:
    """Device nodes of the NPUs and the three managers beside them, readable and writable by this user."""
    if skip := ascend_absent(machine):
        return skip
    nodes = npu_nodes(machine)
    if not nodes:
        if in_container(machine):
            return failure("nodes.none_in_container")
        cards = npu_cards(machine)
        return failure("nodes.none_but_card", cards=cards) if cards else failure("nodes.none")
    missing = [name for name in _MANAGERS if not machine.path(name).exists()]
    if missing:
        return failure("nodes.no_managers", missing=missing)
    denied = [path for path in (*nodes, *map(machine.path, _MANAGERS)) if not machine.may_use(path)]
    if denied:
        return failure("nodes.denied", nodes=[machine.shown(path) for path in denied])
    return ok("nodes.ok", count=len(nodes), nodes=_span([path.name for path in nodes]))


def check_smi(machine: Machine) -> Finding:
    """npu-smi answers, and every chip that is to be used is healthy."""
    if skip := ascend_absent(machine):
        return skip
    outcome = machine.once(ask_smi)
    if outcome.problem == "missing":
        return warning("smi.missing")
    if outcome.problem == "timeout":
        return failure("smi.timeout", seconds=_SECONDS)
    report = machine.once(smi_report)
    if not outcome.works or (not report.chips and re.search(r"dcmi|\bret is\b|fail", outcome.text)):
        cause, cure = explain_line(outcome.text)
        return failure(
            "smi.fails", error=last_line(outcome.text) or f"exit code {outcome.code}", cause=cause, cure=cure
        )
    if not report.chips:
        return warning("smi.unread")
    used = chosen_chips(machine, report)
    ill = [f"{chip.index} ({chip.name}): {chip.health}" for chip in used if chip.health != "OK"]
    if ill:
        return failure("smi.unhealthy", chips=ill)
    return ok("smi.ok", chips=_counted([chip.name for chip in report.chips]), version=report.version or "?")


def check_memory(machine: Machine) -> Finding:
    """HBM that is left, and who holds the rest."""
    if skip := ascend_absent(machine):
        return skip
    report = machine.once(smi_report)
    chips = [chip for chip in chosen_chips(machine, report) if chip.total_mib]
    if not chips:
        return skipped("memory.unknown")
    busy = [_who(chip, report) for chip in chips if _is_busy(chip, report)]
    if busy:
        return warning("memory.busy", busy=busy)
    return ok("memory.ok", free=[f"{(chip.total_mib - chip.used_mib) / 1024:.0f} GiB" for chip in chips])


def check_driver(machine: Machine) -> Finding:
    """Versions of driver and firmware, from the files that their installers leave."""
    if skip := ascend_absent(machine):
        return skip
    driver = version_of(machine.text("/usr/local/Ascend/driver/version.info"))
    firmware = version_of(machine.text("/usr/local/Ascend/firmware/version.info"))
    if not driver:
        return warning("driver.unknown")
    return ok("driver.ok", driver=driver, firmware=firmware) if firmware else ok("driver.no_firmware", driver=driver)


def check_gpu(machine: Machine) -> Finding:
    """nvidia-smi answers and names the GPUs."""
    if skip := gpu_absent(machine):
        return skip
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    outcome = machine.run(query, timeout=_SECONDS)
    if outcome.problem == "missing":
        hinted = machine.glob("/dev/nvidia[0-9]*")
        return warning("gpu.missing") if hinted else failure("gpu.none")
    if outcome.problem == "timeout":
        return failure("gpu.timeout", seconds=_SECONDS)
    rows = [[cell.strip() for cell in line.split(",")] for line in outcome.output.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    if not outcome.works or not rows:
        return failure("gpu.fails", error=last_line(outcome.text) or f"exit code {outcome.code}")
    names = [f"{name} {_gib(memory)}" for name, memory, _ in rows]
    return ok("gpu.ok", gpus=_counted(names), driver=rows[0][2])


def ask_smi(machine: Machine) -> Outcome:
    """Run `npu-smi info`, wherever it lies."""
    for place in _SMI_PLACES:
        outcome = machine.run([place, "info"], timeout=_SECONDS)
        if outcome.problem != "missing":
            return outcome
    return Outcome(127, problem="missing")


def smi_report(machine: Machine) -> SmiReport:
    """Chips and processes as npu-smi tells them."""
    return read_smi(machine.once(ask_smi).output)


def chosen_chips(machine: Machine, report: SmiReport) -> list[Chip]:
    """Keep the chips that ASCEND_RT_VISIBLE_DEVICES leaves visible; all where it is unset or names none of them."""
    wanted = {int(part) for part in re.findall(r"\d+", machine.variable("ASCEND_RT_VISIBLE_DEVICES"))}
    return [chip for chip in report.chips if chip.index in wanted] or list(report.chips)


def _is_busy(chip: Chip, report: SmiReport) -> bool:
    taken = sum(process.mib for process in _on(chip, report))
    return taken > _BUSY_MIB or chip.used_mib > _BUSY_SHARE * chip.total_mib


def _on(chip: Chip, report: SmiReport) -> list[Process]:
    return [other for other in report.processes if (other.card, other.position) == (chip.card, chip.position)]


def _who(chip: Chip, report: SmiReport) -> str:
    holders = [f"{other.name} (pid {other.pid}) {other.mib} MiB" for other in _on(chip, report)]
    who = f" [{'; '.join(holders)}]" if holders else ""
    return f"npu:{chip.index} {chip.used_mib / 1024:.1f} of {chip.total_mib / 1024:.0f} GiB{who}"


def version_of(text: str) -> str:
    """Read the version from a version.info file of driver or firmware; empty where it names none."""
    match = re.search(r"^\s*Version\s*=\s*\[?([^\]\s]+)", text, re.MULTILINE | re.IGNORECASE)
    return match.group(1) if match else ""


def _counted(names: list[str]) -> str:
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _gib(mebibytes: str) -> str:
    return f"{int(mebibytes) / 1024:.0f} GiB" if mebibytes.isdigit() else mebibytes
