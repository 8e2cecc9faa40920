"""From what was written to a value of a setting's type, or one line that says what is allowed."""

from __future__ import annotations

import re
import types
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from burnish.cli.words import Written, read_text
from burnish.errors import ConfigError
from burnish.trl_flags.switches import read_bool

_NONE = ("none", "null")


def read_scalar(value: Any) -> Any:
    """The plain reading of a value of no declared type: words become numbers, booleans, None, lists, dicts."""
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        if len(value) > 1:
            return [read_scalar(word) for word in value]
        value = value[0] if value else True
    if not isinstance(value, str):
        return value
    if value.lower() in _NONE:
        return None
    try:
        return read_text(value)
    except yaml.YAMLError:
        return value


def read_value(written: Written, hint: Any) -> Any:
    """The value that was written as `hint` wants it. Raises ConfigError: where, value, what is allowed."""
    value = written.value
    kind, optional = strip_none(hint)
    if optional and _is_none(value):
        return None
    if get_origin(kind) is dict and _are_pairs(value):
        read = str if get_args(kind)[1:] == (str,) else read_scalar
        value = {name: read(word) for name, word in (pair.split("=", 1) for pair in value)}
    elif get_origin(kind) is list:
        value = [_adapt(part, get_args(kind)[0]) for part in _as_list(value)]
    elif kind is bool:
        value = read_bool(_single(value, True, written, kind), written.where)
    else:
        value = _adapt(_single(value, None, written, kind), kind)
    return _validated(value, hint, written)


def refuse_bare_list(written: Written, hint: Any) -> None:
    """Raise ConfigError for a flag that wants a list and stands alone; an empty list is written []."""
    kind, _ = strip_none(hint)
    if get_origin(kind) is list and written.is_flag and written.value == []:
        raise ConfigError(f"{written.where} needs a value: {describe(hint)}")


def describe(hint: Any) -> str:
    """What a setting's type allows, in words: `a number`, `one of no, steps, epoch`."""
    kind, optional = strip_none(hint)
    if get_origin(kind) is Literal:
        words = "one of " + ", ".join(str(option) for option in get_args(kind))
    elif get_origin(kind) is list:
        words = "a list of numbers" if get_args(kind) == (float,) else "a list of names"
    elif get_origin(kind) is dict:
        words = "NAME=VALUE, or settings in braces, as in '{key: value}'"
    else:
        words = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "text")
    return f"{words}, or none" if optional else words


def strip_none(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None was allowed."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    rest = [part for part in get_args(hint) if part is not type(None)]
    return (rest[0] if len(rest) == 1 else hint), len(rest) < len(get_args(hint))


def _are_pairs(value: Any) -> bool:
    """Whether words of a command line are NAME=VALUE each; braces hold YAML."""
    return isinstance(value, list) and bool(value) and all(re.match(r"[^\s{=]+=", str(word)) for word in value)


def _is_none(value: Any) -> bool:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value is None or (isinstance(value, str) and value.lower() in _NONE)


def _as_list(value: Any) -> list[Any]:
    """A list from words, from one word in brackets or with commas, or from a single YAML value."""
    if not isinstance(value, list):
        value = [value]
    if len(value) == 1 and isinstance(value[0], str):
        word = value[0].strip()
        if word.startswith("["):
            return _bracketed(word)
        return [part.strip() for part in word.split(",") if part.strip()]
    return value


def _bracketed(word: str) -> list[Any]:
    try:
        read = read_text(word)
    except yaml.YAMLError:
        return [word]
    return read if isinstance(read, list) else [read]


def _single(value: Any, bare: Any, written: Written, kind: Any) -> Any:
    """The one word of a flag that takes one; `bare` where the flag stands alone."""
    if not isinstance(value, list) or get_origin(kind) is dict:
        return value if not isinstance(value, list) else " ".join(value)
    if len(value) > 1:
        raise ConfigError(f"{written.where} takes one value; what is '{value[1]}'?")
    if not value and (bare is None or not written.is_flag):
        raise ConfigError(f"{written.where} needs a value: {describe(kind)}")
    return value[0] if value else bare


def _adapt(value: Any, kind: Any) -> Any:
    """Undo what YAML does to words: `no` is False, a year is a number."""
    if get_origin(kind) is Literal and isinstance(value, bool):
        return {False: "no", True: "yes"}[value]
    if kind is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def _validated(value: Any, hint: Any, written: Written) -> Any:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument(f"--{written.key}", type=hint)
    try:
        read = parser.parse_object({written.key: value})[written.key]
    except (ArgumentError, ValueError, TypeError):
        read = None
    if read is None:  # what may be none has returned before
        raise ConfigError(f"{written.where} {_shown(value)}: must be {describe(hint)}")
    return read


def _shown(value: Any) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, list) else str(value)
