"""Sums a tensor over two processes and prints the result; run as a script: BACKEND KIND.

It starts two copies of itself, which meet through a file, so that no port needs to be free.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

MARK = "burnish-probe "
EXPECTED = 3.0
"""1 from the first rank, 2 from the second."""
PATIENCE_SECONDS = 5.0


def main(backend: str, kind: str) -> int:
    """Start two ranks and report on both."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "store")
        command = [sys.executable, "-P", __file__, backend, kind, meeting]
        with contextlib.ExitStack() as files:
            errors = [files.enter_context(tempfile.TemporaryFile("w+", errors="replace")) for _ in range(2)]
            ranks = [
                subprocess.Popen([*command, str(rank)], stderr=errors[rank], stdout=subprocess.PIPE, text=True)
                for rank in range(2)
            ]
            wait_for(ranks)
            sums = [rank.communicate()[0].strip().splitlines()[-1:] for rank in ranks]
            texts = [whole(file) for file in errors]
    good = all(rank.returncode == 0 for rank in ranks)
    right = good and all(found and float(found[0]) == EXPECTED for found in sums)
    facts = {"stage": "ranks", "good": good, "right": right, "seconds": time.monotonic() - start}
    print(MARK + json.dumps(facts), flush=True)
    if not good:
        print("\n".join(texts), file=sys.stderr)
    return 0 if right else 1


def whole(file: IO[str]) -> str:
    """Read a file from its start."""
    file.seek(0)
    return file.read()


def wait_for(ranks: list[subprocess.Popen[str]]) -> None:
    """Wait for both; end the other soon after one has failed, instead of letting it wait for the dead."""
    deadline = float("inf")
    while any(rank.poll() is None for rank in ranks):
        if deadline == float("inf") and any(rank.returncode for rank in ranks):
            deadline = time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)


def rank_main(backend: str, kind: str, meeting: str, rank: int) -> None:
    """Be one of the two ranks."""
    torch = importlib.import_module("torch")
    if kind == "npu" and importlib.util.find_spec("torch_npu") is not None:
        importlib.import_module("torch_npu")
    distributed = importlib.import_module("torch.distributed")
    device = torch.device("cpu") if kind == "cpu" else torch.device(kind, rank)
    if kind != "cpu":
        getattr(torch, kind).set_device(device)
    distributed.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=2)
    tensor = torch.full((1024,), float(rank + 1), device=device)
    distributed.all_reduce(tensor)
    low, high = float(tensor.min().cpu()), float(tensor.max().cpu())
    distributed.destroy_process_group()
    print(low if low == high else -1.0, flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        sys.exit(main(sys.argv[1], sys.argv[2]))
    rank_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
