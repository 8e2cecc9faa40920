"""A rank that raises before one of its steps: `failing_rank.py RANK STEP WORDS…` runs `burnish WORDS…`."""

from __future__ import annotations

import os
import sys
from typing import Any

from burnish.cli.entry import end_process
from burnish.cli.main import main
from burnish.engine.loop import TrainingLoop

rank, at_step, *words = sys.argv[1:]
_update = TrainingLoop._update  # pyright: ignore[reportPrivateUsage]


def breaking(self: TrainingLoop, step: int) -> Any:
    if os.environ["RANK"] == rank and step == int(at_step):
        raise ValueError(f"rank {rank} breaks on purpose")
    return _update(self, step)


TrainingLoop._update = breaking  # pyright: ignore[reportPrivateUsage]
end_process(main(words))
