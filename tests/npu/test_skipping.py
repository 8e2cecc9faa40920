"""Where the vendor's wheel or a C compiler can't be had, tests skip, are counted, and say why; 1 to 4 s each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from npu.conftest import HAS_NPU
from npu.simulator.stand_in import TOOLS
from npu.simulator.wheel import pinned_version
from npu.test_simulated import PROCESSES

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(HAS_NPU, reason="a machine with an NPU needs no simulated one")


def _said(*files: Path, **variables: str) -> tuple[int, str]:
    """Exit code and output of a pytest run over some files on a machine that lacks something."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "PIP_"))}
    words = ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--color=no")
    done = subprocess.run(
        [sys.executable, *words, *map(str, files)],
        env=kept | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=HERE.parents[1],
    )
    return done.returncode, done.stdout


def _assert_all_skipped(said: tuple[int, str], reason: str, *, least: int) -> None:
    """Exit code 0, a summary that counts nothing but skipped tests, and the reason beside each."""
    code, output = said
    assert code == 0, output
    counted = re.search(r"^(\d+) skipped in ", output, re.MULTILINE)
    assert counted, output
    lines = re.findall(r"^SKIPPED \[(\d+)\] (.*)$", output, re.MULTILINE)
    assert sum(int(number) for number, _ in lines) == int(counted[1]) >= least, output
    assert all(line.endswith(f"no simulated NPU: {reason}") for _, line in lines), output


def test_without_the_wheel_each_test_is_skipped(tmp_path: Path) -> None:
    """An index that has none, and an empty cache, which is left empty."""
    nothing = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "BURNISH_TEST_NPU": str(tmp_path / "cache")}
    said = _said(HERE / "test_simulated.py", **nothing)
    reason = f"torch-npu can't be fetched: ERROR: No matching distribution found for torch-npu=={pinned_version()}"
    _assert_all_skipped(said, reason, least=len(PROCESSES))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("missing", TOOLS)
def test_without_a_compiler_each_test_is_skipped(missing: str, tmp_path: Path) -> None:
    """A wheel that is there already, and a PATH without one of the tools; once for every file that needs both."""
    cache, tools = tmp_path / "cache", tmp_path / "tools"
    (cache / f"torch-npu-{pinned_version()}").mkdir(parents=True)
    tools.mkdir()
    for tool in set(TOOLS) - {missing}:
        (tools / tool).symlink_to(shutil.which(tool) or "/bin/true")
    names = ("simulated", "commands", "ranks") if missing == "cc" else ("simulated",)
    files = [HERE / f"test_{name}.py" for name in names]
    said = _said(*files, BURNISH_TEST_NPU=str(cache), PATH=str(tools))
    reason = f"the stand-in for CANN needs a C compiler and binutils; there is no {missing}"
    _assert_all_skipped(said, reason, least=20 if missing == "cc" else len(PROCESSES))
