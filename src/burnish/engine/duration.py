"""Lengths of time as people and schedulers write them: 3h50m, 90m, 1d2h, 45s."""

from __future__ import annotations

import re

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_FORM = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def parse_duration(text: str) -> float:
    """Seconds in a duration of days, hours, minutes and seconds, in this order, each with its letter; > 0.

    Raises:
        ValueError: it is written otherwise, or is no time at all. A bare number is refused: hours or seconds?
    """
    found = _FORM.fullmatch(text.strip().lower())
    parts = found.groups() if found else ()
    seconds = sum(float(part) * _SECONDS[unit] for part, unit in zip(parts, "dhms", strict=False) if part)
    if seconds <= 0:
        raise ValueError(f"{text!r} is no duration such as 3h50m, 90m or 45s")
    return seconds


def format_duration(seconds: float) -> str:
    """Seconds as 3h50m, 12m5s or 8.2s."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
