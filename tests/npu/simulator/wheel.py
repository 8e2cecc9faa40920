"""The vendor's wheel: fetched from the package index once, into a cache folder, never into the environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENT = Path(__file__).parents[3] / "requirements" / "npu-simulator.txt"
FETCH_SECONDS = 300


class CannotSimulate(Exception):  # noqa: N818 (a reason to skip, not a fault)
    """Why this machine has no simulated NPU; tests skip with it."""


def cache_dir() -> Path:
    """Where wheel and stand-in are kept: $BURNISH_TEST_NPU, else ~/.cache/burnish/test-npu (150 MB)."""
    base = os.environ.get("BURNISH_TEST_NPU")
    return Path(base) if base else Path.home() / ".cache" / "burnish" / "test-npu"


def pinned_version() -> str:
    """The version that requirements/npu-simulator.txt pins."""
    found = re.search(r"^torch-npu==(\S+)$", REQUIREMENT.read_text(), re.MULTILINE)
    assert found, REQUIREMENT
    return found[1]


def fetch_wheel() -> Path:
    """The folder with torch_npu in it; fetched where it is not there yet.

    Raises:
        CannotSimulate: the index has no such wheel for this machine, or is out of reach.
    """
    folder = cache_dir() / f"torch-npu-{pinned_version()}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="fetching-", dir=folder.parent))
    words = ["--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(fresh), "-r", str(REQUIREMENT)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *words],
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise CannotSimulate(f"torch-npu can't be fetched: {_last_line(done.stderr)}")
        _move_into_place(fresh, folder)
    except subprocess.TimeoutExpired as error:
        raise CannotSimulate(f"torch-npu can't be fetched: no answer within {FETCH_SECONDS} s") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _move_into_place(fresh: Path, folder: Path) -> None:
    try:
        fresh.rename(folder)
    except OSError:  # another test process was faster
        if not folder.is_dir():
            raise


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
