"""The terminal that tables are printed to."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

NARROWEST = 60
"""Columns below which a table is no longer one; a smaller terminal wraps its lines."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe (`| head`) to main, which ends quietly; rich would exit with 1."""
        raise BrokenPipeError


def open_console(**options: Any) -> Console:
    """Open standard output for rich: colours on a terminal only, no guesses at numbers and paths."""
    console = _Console(file=sys.stdout, highlight=False, **options)
    console.width = max(console.width, NARROWEST)
    return console
