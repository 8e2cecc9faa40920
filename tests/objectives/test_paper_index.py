"""docs/paper_index.md names every objective, and only functions and tests that exist."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from burnish.cli.methods import config_type_of
from burnish.objectives.facts import FACTS
from burnish.objectives.supervised import SUPERVISED
from burnish.objectives.table import PAIRED
from burnish.objectives.unpaired import UNPAIRED

HERE = Path(__file__).parent
INDEX = (HERE.parents[1] / "docs" / "paper_index.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in INDEX.splitlines() if line.startswith("| ")]
ENTRIES = [row for row in ROWS if row[0] != "paper"]


@pytest.mark.parametrize("name", [*PAIRED, *UNPAIRED, *SUPERVISED, "plackett_luce", "softmax", "all_pairs"])
def test_every_objective_has_a_row(name):
    assert any(f"`{name}`" in row[2] for row in ENTRIES)


@pytest.mark.parametrize("name", [*PAIRED, *UNPAIRED, *SUPERVISED])
def test_the_row_names_the_function_of_the_table(name):
    objective = {**PAIRED, **UNPAIRED}.get(name)
    function = SUPERVISED[name] if objective is None else objective.function
    (row,) = [row for row in ENTRIES if re.match(rf"`{name}`", row[2])]
    assert f"{function.__module__.rpartition('.')[2]}.{function.__name__}" in row[1]


@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: row[0][:40])
def test_functions_and_tests_of_a_row_exist(row):
    for module, name in re.findall(r"`(\w+)\.(\w+)`", row[1]):
        assert hasattr(importlib.import_module(f"burnish.objectives.{module}"), name)
    files = re.findall(r"`(test_\w+\.py)`", row[3])
    assert files
    assert all((HERE / file).is_file() for file in files)


def _rows_by_command() -> list[tuple[str, list[str]]]:
    """The command that a section's heading names (dpo where it names none), and each of the section's rows."""
    found: list[tuple[str, list[str]]] = []
    for section in INDEX.split("\n## ")[1:]:
        named = re.search(r"`burnish (\w+)", section.splitlines()[0])
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in re.findall(r"^\| .*$", section, re.MULTILINE)
        ]
        found += [(named[1] if named else "dpo", row) for row in rows if row[0] != "paper"]
    return found


@pytest.mark.parametrize(("command", "row"), _rows_by_command(), ids=lambda cell: str(cell)[:30])
def test_the_flags_of_a_row_are_settings_of_its_command_and_its_names_are_objectives(command, row):
    settings = {field.name for field in dataclasses.fields(config_type_of(command))}
    flags = re.findall(r"--(\w+)", row[2])
    columns = ("margin", "weight", "label_smoothing")
    names = [name for name in re.findall(r"`(\w+)`", row[2]) if name not in columns]
    assert flags or names
    assert set(flags) <= settings
    assert set(names) <= {*FACTS, *UNPAIRED, *SUPERVISED}


def test_every_row_belongs_to_a_section():
    assert [row for _, row in _rows_by_command()] == ENTRIES
