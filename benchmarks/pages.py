"""Puts what a benchmark measured between the markers of a page."""

from __future__ import annotations

import sys
from pathlib import Path


def write_between(page: Path, markers: tuple[str, str], text: str) -> None:
    """Put a text between the markers of a page.

    Raises:
        SystemExit: the page has no markers.
    """
    content = page.read_text(encoding="utf-8")
    start, end = markers
    if start not in content or end not in content:
        sys.exit(f"{page} has no {start} … {end} to write between")
    before, rest = content.split(start, 1)
    page.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}", encoding="utf-8")
