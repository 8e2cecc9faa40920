"""How records look: one Python dict literal a line on standard output, six significant digits."""

from __future__ import annotations

import math
from collections.abc import Mapping

Value = float | int | str


def format_record(record: Mapping[str, Value]) -> str:
    """Write a record as a dict literal that `ast.literal_eval` reads back; nan and inf stand in quotes."""
    return repr({key: _six_digits(value) for key, value in record.items()})


def _six_digits(value: Value) -> Value:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
