"""Checks of CANN: where it is, whether its environment is loaded, its operators, its Python packages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from burnish.device.doctor.findings import Finding, failure, ok, skipped, warning
from burnish.device.doctor.hardware import smi_report
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.packages import read_packages
from burnish.device.doctor.signs import CANN_PLACES, ascend_absent
from burnish.device.doctor.versions import LOWEST_CANN, release

_HOME_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_DEFAULT_SCRIPT = "/usr/local/Ascend/cann/set_env.sh"
_KERNELS = "opp/built-in/op_impl/ai_core/tbe/kernel"
_PYTHON_PACKAGES = (
    "decorator",
    "sympy",
    "cffi",
    "protobuf",
    "attrs",
    "pathlib2",
    "scipy",
    "requests",
    "psutil",
    "absl-py",
)
"""What CANN's own Python code imports; torch_npu's own requirements are numpy and pyyaml."""
_TORCH_NPU_PACKAGES = ("numpy", "pyyaml")


@dataclass(frozen=True, slots=True)
class Cann:
    """A CANN installation, loaded into the environment or merely on disk."""

    home: Path
    """As under the machine's root."""
    version: str
    """Empty where no file tells."""
    script: str
    """What to source, as the user would write it."""
    loaded: bool


def check_cann(machine: Machine) -> Finding:
    """CANN is there, is the one that the environment names, and its environment is loaded whole."""
    if skip := ascend_absent(machine):
        return skip
    if broken := _broken_variable(machine):
        return broken
    cann = machine.once(find_cann)
    if cann is None:
        return failure("cann.absent")
    if not cann.loaded:
        return failure("cann.not_sourced", version=cann.version or "?", script=cann.script)
    home = machine.shown(cann.home)
    if two := _two_homes(machine):
        return two
    if not _on_library_path(machine, cann):
        return warning("cann.half_loaded", version=cann.version or "?", home=home, script=cann.script)
    if not cann.version:
        return warning("cann.unknown", home=home)
    if release(cann.version)[:2] < LOWEST_CANN:
        return failure("cann.old", version=cann.version, home=home)
    return ok("cann.ok", version=cann.version, home=home)


def check_kernels(machine: Machine) -> Finding:
    """Prebuilt operators (the ops or kernels package) for this chip: what runs with jit_compile off."""
    if skip := ascend_absent(machine):
        return skip
    cann = machine.once(find_cann)
    if cann is None:
        return skipped("skip.no_cann")
    opp = machine.variable("ASCEND_OPP_PATH")
    folders = [machine.path(opp) / _KERNELS.removeprefix("opp/")] if opp else []
    folders.append(cann.home / _KERNELS)
    chips = sorted({path.name for folder in folders for path in _folders(folder) if path.name.startswith("ascend")})
    if not chips:
        return warning("kernels.absent", folder=machine.shown(folders[-1]))
    names = [chip.name for chip in machine.once(smi_report).chips]
    wanted = kernels_of(names[0]) if names else ""
    if wanted and wanted not in chips:
        return failure("kernels.other_chip", have=chips, chip=names[0], wanted=wanted)
    return ok("kernels.ok", chips=chips)


def check_python_packages(machine: Machine) -> Finding:
    """The Python packages that CANN and torch_npu import, in the environment that training would use."""
    if skip := ascend_absent(machine):
        return skip
    packages = machine.once(read_packages)
    if packages.problem:
        return failure("packages.unread", python=machine.python, error=packages.problem)
    required = [name for name in _TORCH_NPU_PACKAGES if not packages.version(name)]
    missing = [name for name in _PYTHON_PACKAGES if not packages.version(name)]
    if required:
        return failure("deps.required", names=required, install=" ".join(required + missing))
    if missing:
        return warning("deps.missing", names=missing, install=" ".join(missing))
    return ok("deps.ok")


def find_cann(machine: Machine) -> Cann | None:
    """Find the CANN that the environment names, else the one on disk."""
    for variable in _HOME_VARIABLES:
        value = machine.variable(variable)
        if value and machine.path(value).is_dir():
            home = machine.path(value)
            return Cann(home, cann_version(home), _script(machine, home), loaded=True)
    places = [machine.path(place) for place in CANN_PLACES]
    places += [machine.home / "Ascend/cann", machine.home / "Ascend/ascend-toolkit/latest"]
    for home in places:
        if home.is_dir():
            return Cann(home, cann_version(home), _script(machine, home), loaded=False)
    return None


def cann_version(home: Path) -> str:
    """Read CANN's version from what its installer leaves; empty where nothing tells."""
    for pattern in ("ascend_*_install.info", "*-linux/ascend_*_install.info", "*/ascend_*_install.info"):
        for path in sorted(home.glob(pattern)):
            match = re.search(r"^\s*version\s*=\s*(\S+)", _text(path), re.MULTILINE | re.IGNORECASE)
            if match:
                return match.group(1)
    match = re.search(r"toolkit_\w*running_version\s*=\s*\[?[^:\]\s]*:([^\]\s]+)", _text(home / "version.cfg"))
    match = match or re.search(r"running_version\s*=\s*\[?[^:\]\s]*:([^\]\s]+)", _text(home / "version.cfg"))
    if match:
        return match.group(1)
    named = re.search(r"(\d+\.\d+[\w.]*)$", home.resolve().name)
    return named.group(1) if named else ""


def kernels_of(chip: str) -> str:
    """Folder of prebuilt operators for a chip's name in npu-smi; empty where not known.

    A3 shows itself as plain Ascend910, as do the first 910 cards in old tools, so that it decides nothing.
    """
    name = chip.lower().removeprefix("ascend").strip()
    if name.startswith("910b"):
        return "ascend910b"
    if name.startswith(("910pro", "910premium", "910a")):
        return "ascend910"
    return "ascend310p" if name.startswith("310p") else ""


def _broken_variable(machine: Machine) -> Finding | None:
    for variable in _HOME_VARIABLES:
        value = machine.variable(variable)
        if value and not machine.path(value).is_dir():
            places = [machine.path(place) for place in CANN_PLACES]
            there = next((_script(machine, home) for home in places if home.is_dir()), _DEFAULT_SCRIPT)
            return failure("cann.home_missing", variable=variable, home=value, script=there)
    return None


def _two_homes(machine: Machine) -> Finding | None:
    homes = [machine.variable(variable) for variable in _HOME_VARIABLES]
    if not all(homes) or machine.path(homes[0]).resolve() == machine.path(homes[1]).resolve():
        return None
    return warning("cann.two", one=homes[0], other=homes[1])


def _on_library_path(machine: Machine, cann: Cann) -> bool:
    entries = [entry for entry in machine.variable("LD_LIBRARY_PATH").split(":") if entry]
    resolved = {machine.path(entry).resolve() for entry in entries}
    places = (cann.home / "lib64", *cann.home.glob("*-linux/lib64"))
    return any(place.resolve() in resolved for place in places)


def _script(machine: Machine, home: Path) -> str:
    for folder in (home, home.parent):
        if (folder / "set_env.sh").is_file():
            return machine.shown(folder / "set_env.sh")
    return machine.shown(home / "set_env.sh")


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
