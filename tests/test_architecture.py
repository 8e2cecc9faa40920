"""The folder layout is the architecture: imports go one way, and devices are named in one room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "burnish"
ORDER = [
    {"errors", "secrets"},
    {"console", "ranges"},
    {"device"},
    {"data"},
    {"batching"},
    {"scoring", "objectives"},
    {"models"},
    {"engine"},
    {"trl_flags"},
    {"methods"},
    {"demo"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted(SOURCE.rglob("*.py"))
COPIED_LINES = 6
"""A run of so many lines may stand in one file of methods/ only."""
GLUE = ("preference", "supervised", "unpaired", "rewarding")
"""Files of methods/ that hold a method's loss and its trainer."""
GLUE_LINES = 200


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("burnish.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__"):
        return  # the public names, and the command
    for other in _imported_rooms(path):
        assert other in LEVEL, f"{other} has no place in the order of rooms"
        allowed = LEVEL[other] < LEVEL[room] or other == room
        assert allowed, f"{path.relative_to(SOURCE)}: {room} may not import {other}"


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {_room(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms == set(LEVEL)


@pytest.mark.parametrize("path", [path for path in FILES if _room(path) != "device"], ids=str)
def test_only_the_device_room_names_a_device_module(path: Path) -> None:
    found = re.findall(r"torch\.(?:cuda|npu)\b|\bimport torch_npu|\b(?:hccl|nccl)\b", path.read_text())
    assert not found, f"{path.relative_to(SOURCE)} names {found}"


def test_the_library_imports_nothing_of_the_demo() -> None:
    for path in FILES:
        if _room(path) not in ("demo", "cli"):
            assert "demo" not in _imported_rooms(path), path


def _code_lines(path: Path) -> list[str]:
    """Lines that are not blank, without indentation; imports and docstrings are copied as easily as code."""
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _copied_runs(folder: Path) -> list[str]:
    """Runs of lines that stand in two files of a folder, with the files' names."""
    first_of: dict[tuple[str, ...], Path] = {}
    found: list[str] = []
    for path in sorted(folder.glob("*.py")):
        lines = _code_lines(path)
        for start in range(len(lines) - COPIED_LINES + 1):
            run = tuple(lines[start : start + COPIED_LINES])
            other = first_of.setdefault(run, path)
            if other != path:
                found.append(f"{path.name} and {other.name} both have:\n" + "\n".join(run))
    return found


def test_methods_copy_nothing_from_each_other() -> None:
    assert _copied_runs(SOURCE / "methods") == []


def test_a_copy_between_methods_would_be_found(tmp_path: Path) -> None:
    """However it is indented, and with blank lines in between; one line less is no copy."""
    source = (SOURCE / "methods" / "supervised.py").read_text().splitlines()
    start = next(number for number, line in enumerate(source) if line.lstrip().startswith("def loss("))
    copied = [line for line in source[start:] if line.strip()][:COPIED_LINES]
    (tmp_path / "supervised.py").write_text("\n".join(source))
    other = tmp_path / "other.py"
    other.write_text("\n".join(["import math", *(f"    {line}\n" for line in copied[1:]), "x = 1"]))
    assert _copied_runs(tmp_path) == []
    other.write_text("\n".join(["import math", *(f"    {line}\n" for line in copied), "x = 1"]))
    assert [run.splitlines()[0] for run in _copied_runs(tmp_path)] == ["supervised.py and other.py both have:"]


@pytest.mark.parametrize("name", GLUE)
def test_the_glue_of_a_method_is_thin(name: str) -> None:
    lines = (SOURCE / "methods" / f"{name}.py").read_text().splitlines()
    assert len(lines) < GLUE_LINES, f"{name}.py has {len(lines)} lines: what is not the method's own belongs to a room"


def test_importing_burnish_imports_no_torch() -> None:
    code = "import burnish, sys; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
