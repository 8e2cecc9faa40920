"""Say when a run has the gradients of its first step, in seconds from the command, and when the command was done.

    python benchmarks/first_gradients.py dpo --model_name_or_path M --dataset_name rows.jsonl --max_steps 1

The words are those of `burnish`; the times go to standard error.
"""

from __future__ import annotations

import sys
import time
from typing import Any

BEGAN = time.perf_counter()


def _tell(what: str) -> None:
    print(f"{what} after {time.perf_counter() - BEGAN:.1f} s", file=sys.stderr)


def _watch_gradients() -> None:
    """Tell of the first step's gradients, whoever asks for them."""
    from burnish.engine.passes import Passes

    passes: Any = Passes
    compute = passes.train

    def train(*arguments: Any) -> Any:
        computed = compute(*arguments)
        passes.train = compute
        _tell("first gradients")
        return computed

    passes.train = train


def main() -> int:
    """Run the command, with its first gradients watched."""
    from burnish.cli import train
    from burnish.cli.main import main as burnish

    run = train._train_with

    def run_watched(*arguments: Any, **options: Any) -> int:
        _watch_gradients()  # here, for torch is imported only after the process that tokenises has been started
        return run(*arguments, **options)

    train._train_with = run_watched
    code = burnish(sys.argv[1:])
    _tell("done")
    return code


if __name__ == "__main__":
    sys.exit(main())
