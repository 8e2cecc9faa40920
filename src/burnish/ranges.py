"""Which values a setting may take, and the one line that a user reads when it takes another.

Every room states the ranges of its settings in a table beside them; the same words stand in the settings' docstrings.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from burnish.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """An interval of numbers, open or closed at either end."""

    least: float | None = None
    """Smallest value allowed."""
    above: float | None = None
    """All values allowed are greater."""
    most: float | None = None
    """Greatest value allowed."""
    below: float | None = None
    """All values allowed are smaller."""
    whole: bool = False
    """Whether only whole numbers are allowed."""
    share: bool = False
    """Whether a value below 1 is a share; from 1 on, values are counts, and whole."""

    def __contains__(self, value: float) -> bool:
        whole = self.whole or (self.share and value >= 1)
        return (
            math.isfinite(value)
            and (not whole or value == int(value))
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if high is not None:
            return f"in {'[' if self.above is None else '('}{low}, {high}{']' if self.below is None else ')'}"
        return f"{'≥' if self.above is None else '>'} {low}"


COUNT = Range(least=1, whole=True)
POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(least=0)
PROBABILITY = Range(least=0, below=1)
STEPS = Range(above=0, share=True)
"""Optimizer steps, or below 1 a share of all steps."""


def check_ranges(settings: Any, ranges: Mapping[str, Range]) -> None:
    """Raise ConfigError for the first setting whose number is out of its range. None stands for unset and passes."""
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise setting_error(settings, name, "must be a number")
        if not math.isfinite(value):
            raise setting_error(settings, name, f"must be a finite number, {allowed}")
        if value not in allowed:
            raise setting_error(settings, name, f"must be {_words(value, allowed)}")


def _words(value: float, allowed: Range) -> str:
    fraction = value != int(value)
    if fraction and allowed.whole:
        return f"a whole number, {allowed}"
    return f"{allowed}, and whole from 1 on" if fraction and allowed.share else str(allowed)


def check_choices(settings: Any, settings_type: type) -> None:
    """Raise ConfigError for the first setting of `settings_type` that is none of the words that its type names."""
    for name, options in _choices(settings_type).items():
        if getattr(settings, name) not in options:
            words = ", ".join("none" if option is None else str(option) for option in options)
            raise setting_error(settings, name, f"must be one of {words}")


def setting_error(settings: Any, name: str, allowed: str) -> ConfigError:
    """The line for a setting that may not have its value: name, value, what is allowed, the default as the cure."""
    value = getattr(settings, name)
    words = value if value and isinstance(value, list) else [value]
    shown = " ".join(f"{word:g}" if isinstance(word, float) else str(word) for word in words)
    return ConfigError(f"--{name} {shown}: {allowed}{_default_words(settings, name)}")


def _default_words(settings: Any, name: str) -> str:
    field = next(field for field in dataclasses.fields(settings) if field.name == name)
    if field.default_factory is not dataclasses.MISSING or field.default is None:
        return ""
    return f" (default {field.default})"


@functools.cache
def _choices(settings_type: type) -> dict[str, tuple[Any, ...]]:
    found = {}
    for name, hint in typing.get_type_hints(settings_type).items():
        parts = get_args(hint) if get_origin(hint) is not Literal else (hint,)
        literals = [part for part in parts if get_origin(part) is Literal]
        if literals:
            found[name] = get_args(literals[0]) + ((None,) if type(None) in parts else ())
    return found
