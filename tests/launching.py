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
    file = folder / f"jobs-{count}.json"
    file.write_text(json.dumps([[str(word) for word in words] for words in jobs]))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
        *(str(TESTS / "ranks" / "worker.py"), str(file)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)
    if expect is not None:
        assert done.returncode == expect, done.stderr[-4000:]
    return done
