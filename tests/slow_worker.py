"""The process of `--lazy_tokenise` with one slow row: the last is not read before the run has its first gradients.

Told by variables: GATE is the file that appears when the run has them, WRONG_FRONT makes the first rows handed over
those of another seed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from burnish.batching.sampler import draw_order
from burnish.data.rows import ReadRow, RowSource
from burnish.methods import ahead_worker

PATIENCE = 90.0
"""Seconds until the run is given up; the process then breaks down, and the run says so."""


def _read_slowly(rows: RowSource) -> Iterator[ReadRow]:
    gate, deadline = Path(os.environ["GATE"]), time.monotonic() + PATIENCE
    for number, row in enumerate(rows):
        while number + 1 == rows.num_rows and not gate.exists():
            if time.monotonic() > deadline:
                raise TimeoutError("the run waits for the last row")
            time.sleep(0.02)
        yield row


def _prepare_slowly(rows: RowSource, *others: Any, **options: Any) -> Any:
    return prepare_groups(replace(rows, read=lambda: _read_slowly(rows)), *others, **options)


def _draw_wrongly(num_examples: int, seed: int, epoch: int, strategy: str) -> Any:
    return draw_order(num_examples, seed + 1, epoch, strategy)


if __name__ == "__main__":
    prepare_groups = ahead_worker.prepare_groups
    ahead_worker.prepare_groups = _prepare_slowly
    if os.environ.get("WRONG_FRONT"):
        ahead_worker.draw_order = _draw_wrongly
    sys.exit(ahead_worker.main(Path(sys.argv[1])))
