"""What a run says besides its records: notices and progress bars, both on standard error.

Standard output carries records and results only, so that `burnish dpo … > log` keeps a log that programs can read.
Where standard error is no terminal, bars are silent and notices are plain lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from burnish.secrets import redact


class _Bars:
    allowed = True


class Advance(Protocol):
    """Moves a progress bar forward by `count` units."""

    def __call__(self, count: int = 1) -> None: ...


def printable(text: str) -> str:
    """Return any text as a terminal may show it: control characters are written out, secrets are masked."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in redact(text))


def is_main_process() -> bool:
    """Whether this process speaks for the run: rank 0 of those that a launcher started together, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def notice(line: str) -> None:
    """Print one plain line to standard error, if somebody reads it; of several processes, the first says it for all."""
    if not is_main_process():
        return
    try:
        print(printable(line), file=sys.stderr, flush=True)
    except BrokenPipeError:
        _drop(sys.stderr)


def say(line: str) -> None:
    """Print one line to standard output; a reader that goes away (`| head`) does not end the run."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        _drop(sys.stdout)
        notice("standard output was closed; the run goes on, and its records stand in metrics.jsonl")


def _drop(stream: TextIO) -> None:
    """Let what is written to a closed stream from now on go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def warn(line: str) -> None:
    """Print one line to standard error that the user should not miss."""
    notice(f"warning: {line}")


def disable_bars(disabled: bool = True) -> None:
    """Turn progress bars off for this process (`--disable_tqdm`), or on again."""
    _Bars.allowed = not disabled


def bars_shown() -> bool:
    """Whether progress bars are wanted and somebody watches: standard error is a terminal, and this is rank 0."""
    return _Bars.allowed and is_main_process() and sys.stderr.isatty()


@contextmanager
def progress(label: str, *, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show a bar with rate and time left while the block runs; yields the function that advances it.

    Args:
        label: what is being done, e.g. "tokenising".
        total: how many units there are.
        unit: what is counted, in the plural, e.g. "rows".
        done: how many were done before (a resumed run).
    """
    from tqdm import tqdm

    hidden = not bars_shown()
    with tqdm(total=total, initial=done, desc=label, unit=f" {unit}", disable=hidden, dynamic_ncols=True) as bar:

        def advance(count: int = 1) -> None:
            bar.update(count)

        yield advance
