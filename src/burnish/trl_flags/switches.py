"""Switches as TRL's command line and its files write them."""

from __future__ import annotations

from typing import Any

from burnish.errors import ConfigError

YES = ("yes", "true", "t", "y", "1", "on")
NO = ("no", "false", "f", "n", "0", "off")
"""Words for true and false, in lower case."""


def read_bool(value: Any, where: str) -> bool:
    """True or False from a boolean or one of the words that TRL's command line knows. Raises ConfigError."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in YES + NO:
        return word in YES
    raise ConfigError(f"{where} {value}: must be true or false")
