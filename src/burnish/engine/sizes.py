"""Amounts of memory as people write them: 64GiB, 24GB, 512MiB."""

from __future__ import annotations

import re

_BYTES = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b)")


def parse_size(text: str) -> int:
    """Bytes of a number with its unit; > 0. GiB counts 1,024s, GB counts 1,000s.

    Raises:
        ValueError: it is written otherwise, or is nothing. A bare number is refused: bytes or GiB?
    """
    found = _FORM.fullmatch(text.strip().lower())
    size = int(float(found[1]) * _BYTES[found[2]]) if found else 0
    if size <= 0:
        raise ValueError(f"{text!r} is no amount of memory such as 64GiB or 24GB")
    return size
