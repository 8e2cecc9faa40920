"""docs/reliability.md and SECURITY.md: every fault has a row in both languages, and every test they name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ENGLISH, CHINESE = REPOSITORY / "docs" / "reliability.md", REPOSITORY / "docs" / "zh" / "reliability.md"
WITHOUT_A_SUBJECT = {15, 32}
ROW = re.compile(r"^\| (\d+) \|", re.MULTILINE)


def faults_of(page: Path) -> list[int]:
    """Numbers of the faults that a page's tables have rows for; exit codes have a header of their own."""
    table = page.read_text(encoding="utf-8").split("| # |", 1)[1].split("\n\n", 1)[0]
    return [int(number) for number in ROW.findall(table)]


def test_every_fault_has_a_row_in_both_languages() -> None:
    expected = [number for number in range(1, 34) if number not in WITHOUT_A_SUBJECT]
    assert faults_of(ENGLISH) == faults_of(CHINESE) == expected


def test_both_languages_have_the_same_tables_commands_and_tests() -> None:
    """Rows of each table in order, commands, and tests by name: what one page tells, the other does too."""
    for facts in (
        lambda text: [len(table.splitlines()) for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)],
        lambda text: re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        lambda text: sorted(set(re.findall(r"`(test_\w+\.py::test_\w+)`|(tests/\w+/test_\w+\.py)", text))),
        lambda text: sorted(set(re.findall(r"--[a-z_]{4,}", text))),
        lambda text: sorted(re.findall(r"\d+\.\d+ %|\d,\d{3} bytes", text)),
    ):
        english, chinese = (facts(page.read_text(encoding="utf-8")) for page in (ENGLISH, CHINESE))
        assert chinese == english


@pytest.mark.parametrize("page", [ENGLISH, REPOSITORY / "SECURITY.md"], ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text(encoding="utf-8"))
    assert len(named) > 15
    assert [(file, test) for file, test in named if test not in _defined_in(file)] == []


def test_every_row_of_the_faults_names_a_test() -> None:
    table = ENGLISH.read_text(encoding="utf-8").split("| # |", 1)[1].split("\n\n", 1)[0]
    assert [row[:60] for row in table.splitlines()[2:] if "::test_" not in row] == []


def _defined_in(file: str) -> set[str]:
    """Names of all tests of files of that name."""
    paths = list((REPOSITORY / "tests").rglob(file))
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
