"""The table of faults in README.md names a test for every fault, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
WITHOUT_A_SUBJECT = {15, 32}
"""Faults of what does not exist: a generation buffer, reward functions."""


def rows() -> dict[int, list[str]]:
    """Tests of each fault, by its number."""
    found = re.findall(r"^\| (\d+) \|[^|]*\|([^|]*)\|$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    return {int(number): re.findall(r"`([^`]+)`", tests) for number, tests in found}


def test_every_fault_has_a_test() -> None:
    assert set(rows()) == set(range(1, 34)) - WITHOUT_A_SUBJECT
    assert [number for number, tests in rows().items() if not tests] == []


def test_every_test_of_the_table_exists() -> None:
    missing: list[str] = []
    for name in sorted({name for tests in rows().values() for name in tests}):
        file, _, function = name.partition("::")
        path = FOLDER / file
        defined = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        if not any(one == function or (not function and one.startswith("test_")) for one in defined):
            missing.append(name)
    assert missing == []
