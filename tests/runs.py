"""Running the command as a user does, and reading what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from burnish.cli.main import main


def run_burnish(*words: Any, expect: int = 0) -> None:
    """Run the command in this process, for speed; its exit code must be the expected one."""
    code = main([str(word) for word in words])
    assert code == expect, f"exit code {code}, expected {expect}"


def spawn_burnish(*words: Any, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a shell does."""
    return subprocess.run(
        [sys.executable, "-m", "burnish", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2", **environment},
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run directory."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
