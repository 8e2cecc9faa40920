"""JSON that any reader accepts and that keeps every float.

NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity". Python's own encoder writes bare NaN, which is
no JSON, and null would hide whether a loss was NaN or infinite. These strings are the ones of protobuf's JSON mapping,
and `float()` reads each of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """Encode a value as strict JSON; keys keep their order, floats all their digits.

    Raises:
        TypeError: something in the value has no JSON form; the message says where it is.
    """
    return json.dumps(_spell_floats(to_plain(value)), indent=indent, ensure_ascii=False, allow_nan=False)


def parse_json(text: str | bytes) -> Any:
    """Decode what `dump_json` wrote, the spelt-out floats included.

    Raises:
        ValueError: the text is not JSON, or has bare NaN or Infinity.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return _read_floats(value)


def to_plain(value: Any, place: str = "value") -> Any:
    """Turn settings or counters into dicts, lists, strings, numbers, booleans and None.

    Raises:
        TypeError: a dict's key is no string, or a value is of another kind.
    """
    if isinstance(value, Enum):
        return to_plain(value.value, place)
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, PurePath):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        bad = [key for key in value if not isinstance(key, str)]
        if bad:
            raise TypeError(f"{place}: the key {bad[0]!r} is no string")
        return {key: to_plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place}: {type(value).__name__} has no JSON form")


def _spell_floats(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _spell_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spell_floats(item) for item in value]
    return value


def _read_floats(value: Any) -> Any:
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict):
        return {key: _read_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_floats(item) for item in value]
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
