"""Checks that load torch in a process of its own and count the devices that it sees."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass, field
from typing import Any

from burnish.device.doctor.explain import explain_line
from burnish.device.doctor.findings import Finding, failure, ok, skipped
from burnish.device.doctor.machine import Machine, Outcome
from burnish.device.doctor.packages import probe_command, read_packages
from burnish.device.doctor.signs import ascend_absent, gpu_absent

_SECONDS = 120
_MARK = "burnish-probe "
_VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
_ERROR_LINE = re.compile(r"[\w.]*(?:Error|Exception|Interrupt|Exit)\b")
AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a process learned that imported torch."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stage (torch, torch_npu, loaded, npu, cuda) → its facts."""
    outcome: Outcome = field(default_factory=lambda: Outcome(0))

    @property
    def works(self) -> bool:
        return "loaded" in self.stages

    def devices(self, kind: str) -> int:
        """How many devices of a kind torch sees."""
        return int(self.stages.get(kind, {}).get("count", 0))

    @property
    def kind(self) -> str:
        """The device that training would use: the first of npu, cuda and cpu."""
        return next((kind for kind in ("npu", "cuda") if self.devices(kind)), "cpu")


def load_torch(machine: Machine) -> Loaded:
    """Import torch as training would, and keep what it says before it fails."""
    outcome = machine.run(probe_command(machine, "load.py"), timeout=_SECONDS, environment=machine.environment)
    return Loaded(read_stages(outcome.output), outcome)


def read_stages(output: str) -> dict[str, dict[str, Any]]:
    """Read a probe's lines; what other software prints between them is passed over."""
    stages: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        _, mark, facts = line.partition(_MARK)
        if mark:
            try:
                stage = json.loads(facts)
                stages[stage.pop("stage")] = stage
            except (ValueError, KeyError):
                continue
    return stages


def check_import(machine: Machine) -> Finding:
    """Torch, and torch_npu where it is installed, can be imported."""
    packages = machine.once(read_packages)
    if packages.problem or not packages.version("torch"):
        return skipped("skip.earlier")
    loaded = machine.once(load_torch)
    if loaded.works:
        return _how_it_loads(machine, loaded)
    for module in ("torch", "torch_npu"):
        error = loaded.stages.get(module, {}).get("error", "")
        if error:
            return failing("load.fails", f"{error}\n{loaded.outcome.error}", deepest(error), module=module)
    if loaded.outcome.problem == "timeout":
        return failure("load.timeout", seconds=_SECONDS)
    return failure("load.crash", how=ending(loaded.outcome))


def check_count(machine: Machine) -> Finding:
    """As many devices as the environment asks for."""
    loaded = machine.once(load_torch) if machine.once(read_packages).version("torch") else Loaded()
    if not loaded.works:
        return skipped("skip.no_torch")
    expected = expected_kind(machine)
    for kind in ("npu", "cuda") if expected == "cpu" else (expected,):
        if loaded.devices(kind):
            return _counted(machine, loaded, kind)
    if expected == "cpu":
        return ok("count.cpu")
    error = loaded.stages.get(expected, {}).get("error", "")
    if error:
        return failing("count.fails", error, deepest(error))
    variable = _VISIBLE[expected]
    if variable in machine.environment and machine.variable(variable) in ("", "-1"):
        return failure("count.hidden", variable=variable, value=machine.variable(variable))
    return failure("count.none" if expected == "npu" else "count.none_cuda")


def expected_kind(machine: Machine) -> str:
    """The device that this machine should offer to training."""
    if machine.wanted != "auto":
        return machine.wanted
    packages = machine.once(read_packages)
    if ascend_absent(machine) is None:
        return "npu"
    return "cuda" if gpu_absent(machine) is None and packages.torch_build != "CPU" else "cpu"


def failing(key: str, text: str, error: str, **values: Any) -> Finding:
    """Make a failure of a message whose cause and cure the doctor may know."""
    cause, cure = explain_line(text)
    return failure(key, error=error, cause=cause, cure=cure, **values)


def deepest(error: str) -> str:
    """First line of the last error in a chain or a traceback: what follows it is stamps and advice."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    links = [line for line in lines if _ERROR_LINE.match(line)]
    text = (links or lines or [error])[-1]
    return text if len(text) <= 200 else text[:199] + "…"


def ending(outcome: Outcome) -> str:
    """Name how a process ended: a signal, or its exit code."""
    if outcome.problem == "timeout":
        return "a timeout"
    if outcome.code < 0:
        try:
            return signal.Signals(-outcome.code).name
        except ValueError:
            return f"signal {-outcome.code}"
    return f"exit code {outcome.code}"


def _how_it_loads(machine: Machine, loaded: Loaded) -> Finding:
    seconds = f"{loaded.stages['loaded'].get('seconds', 0):.1f}"
    if not machine.once(read_packages).version("torch_npu"):
        return ok("load.ok", seconds=seconds)
    off = machine.variable(AUTOLOAD) == "0"
    return ok("load.ok_no_autoload" if off else "load.ok_npu", seconds=seconds)


def _counted(machine: Machine, loaded: Loaded, kind: str) -> Finding:
    facts = loaded.stages[kind]
    asked = [part for part in machine.variable(_VISIBLE[kind]).split(",") if part.strip()]
    if len(asked) > facts["count"]:
        value = machine.variable(_VISIBLE[kind])
        return failure("count.fewer", variable=_VISIBLE[kind], value=value, asked=len(asked), count=facts["count"])
    memory = f"{facts.get('total_bytes', 0) / 2**30:.0f} GiB"
    names = list(dict.fromkeys(facts.get("names", [])))
    return ok("count.ok", count=facts["count"], kind=kind, names=names, memory=memory)
