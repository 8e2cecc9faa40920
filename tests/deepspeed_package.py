"""DeepSpeed for the tests of ZeRO: installed once into a cache folder of their own, never into the environment."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements" / "deepspeed.txt"
FETCH_SECONDS = 300


class CannotInstall(Exception):  # noqa: N818 (a reason to skip, not a fault)
    """Why there is no DeepSpeed here; tests skip with it."""


def deepspeed_environment() -> dict[str, str]:
    """What a process needs in its environment to find DeepSpeed; fetched where it is not there yet.

    Raises:
        CannotInstall: the package index has it not, or is out of reach.
    """
    if importlib.util.find_spec("deepspeed") is not None:
        return {}
    paths = [str(_fetched()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def _fetched() -> Path:
    found = re.search(r"^deepspeed==(\S+)$", REQUIREMENTS.read_text(), re.MULTILINE)
    assert found, REQUIREMENTS
    base = os.environ.get("BURNISH_TEST_DEEPSPEED")
    parent = Path(base) if base else Path.home() / ".cache" / "burnish" / "test-deepspeed"  # 25 MB
    folder = parent / f"deepspeed-{found[1]}"
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="fetching-", dir=parent))
    # Its build asks the environment's torch which devices there are, so that it can't be an isolated one.
    words = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(fresh)]
    environment = {**os.environ, "DS_BUILD_OPS": "0", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-m", "pip", "install", *words, "-r", str(REQUIREMENTS)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False, env=environment
        )
        if done.returncode != 0:
            raise CannotInstall(f"DeepSpeed can't be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        if not folder.is_dir():  # another test process may have been faster
            fresh.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(f"DeepSpeed can't be installed: no answer within {FETCH_SECONDS} s") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder
