"""Replies before and after training, side by side."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def format_samples(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> str:
    """Lay out prompts with their replies; wide characters count as two columns.

    Args:
        before: records with `prompt` and `reply`; may be empty (a resumed run).
        after: records of the same prompts.
    """
    width = min(shutil.get_terminal_size((120, 24)).columns, 160)
    console = Console(width=width, no_color=True, highlight=False)
    table = Table(title="samples", show_lines=True, expand=True)
    for column in ("prompt", "before", "after"):
        table.add_column(column, overflow="fold", ratio=1)
    earlier = {record["prompt"]: record["reply"] for record in before}
    for record in after:
        texts = (record["prompt"], earlier.get(record["prompt"], "-"), record["reply"])
        table.add_row(*(Text(text.strip()) for text in texts))
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()
