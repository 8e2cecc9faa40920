"""Which Python packages training would find, read without importing any of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from burnish.device.doctor.machine import Machine

PROBES = Path(__file__).parent / "probes"
_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Packages:
    """The packages of the interpreter."""

    python: tuple[int, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    """Normalised distribution name (lower case, dashes) → version."""
    torch_build: str = ""
    """cpu, CUDA 12.8 or ROCm 6.4; empty without torch."""
    problem: str = ""

    def version(self, name: str) -> str:
        """Version of a package; empty where it is not installed."""
        return self.versions.get(name.lower().replace("_", "-"), "")


def probe_command(machine: Machine, name: str, *arguments: str) -> list[str]:
    """Command that runs a probe; `-P` keeps the probe's own folder off its import path."""
    return [machine.python, "-P", str(PROBES / name), *arguments]


def read_packages(machine: Machine) -> Packages:
    """Ask the interpreter for its packages."""
    outcome = machine.run(probe_command(machine, "packages.py"), timeout=_SECONDS, environment=machine.environment)
    if not outcome.works:
        return Packages(problem=last_line(outcome.text) or outcome.problem or f"exit code {outcome.code}")
    try:
        facts = json.loads(outcome.output.splitlines()[-1])
        return Packages(tuple(facts["python"]), facts["versions"], facts["torch_build"])
    except (ValueError, KeyError, IndexError):
        return Packages(problem=last_line(outcome.text))


def last_line(text: str) -> str:
    """Last line that says something: of a traceback, its error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
