"""Starting several ranks on this machine, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_ranks(
    count: int, jobs: Sequence[Sequence[Any]], folder: Path, *, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run commands one after another on `count` ranks of one launch."""
    told = [[str(word) for word in words] for words in jobs]
    return run_program(count, "worker.py", told, folder, expect=expect)


def run_program(
    count: int, program: str, told: Any, folder: Path, *, expect: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program of tests/ranks on `count` ranks of one launch, with what it is told in a JSON file."""
    file = folder / f"{Path(program).stem}-{count}.json"
    file.write_text(json.dumps(told))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
        *(str(TESTS / "ranks" / program), str(file)),
    ]
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)
    if expect is not None:
        assert done.returncode == expect, done.stderr[-4000:]
    return done
