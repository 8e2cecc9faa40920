"""TRL's names in Python: `DPOConfig(bf16=True, remove_unused_columns=False)` means what the flags mean.

The table of TRL's settings answers a command line, a file and a call alike. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from burnish.console import notice
from burnish.errors import ConfigError
from burnish.trl_flags import table_of
from burnish.trl_flags.kinds import NotNeeded, Refused, Same, Table, Translated

T = TypeVar("T")


class TakesTRLNames(type):
    """The kind of a settings class whose calls take TRL's names beside its own."""

    def __call__(cls: type[T], *args: Any, **settings: Any) -> T:
        """Make the settings of which TRL's names speak. Raises ConfigError as the command line does."""
        return type.__call__(cls, *args, **our_settings(cls, settings))


class HasTRLNames:
    """Settings whose objects are read and changed by TRL's names too, as TRL's scripts do."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What a name of TRL's says here: nothing was asked for; else AttributeError names ours."""
            answer = None if name.startswith("_") else table_of(type(self)).get(name)
            if isinstance(answer, Refused):
                return False if False in answer.harmless else None
            if isinstance(answer, NotNeeded) or (isinstance(answer, Translated) and answer.is_bag):
                return None
            cure = f"; it is {answer.to} here" if isinstance(answer, Translated) else ""
            raise AttributeError(f"{type(self).__name__} has no {name}{cure}")

        def __setattr__(self, name: str, value: Any) -> None:
            """Set ours, or those that a name of TRL's means. Raises ConfigError as a call does."""
            if hasattr(type(self), name) or name in type(self).__dataclass_fields__:
                object.__setattr__(self, name, value)
                return
            for ours, wanted in our_settings(type(self), {name: value}).items():
                object.__setattr__(self, ours, wanted)


def our_settings(config_type: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by our names; what was not needed is told in a line each.

    Args:
        config_type: a dataclass of settings, such as DPOConfig.
        given: names and values of a call, ours and TRL's mixed.

    Raises:
        ConfigError: a name that is neither, one that is refused, or two that ask for different values of a setting.
    """
    names = {field.name for field in dataclasses.fields(config_type) if field.init}
    table = table_of(config_type)
    ours: dict[str, Any] = {}
    for name, value in given.items():
        where = f"{config_type.__name__}({name}={value!r})"
        for setting, wanted in _answer(name, value, given, (names, table), where).items():
            if setting in ours and ours[setting] != wanted:
                raise ConfigError(f"{where} asks for another {setting} than the rest of the call; keep one")
            ours[setting] = wanted
    return ours


def _answer(
    name: str, value: Any, given: Mapping[str, Any], known: tuple[set[str], Table], where: str
) -> dict[str, Any]:
    """Our settings that one name of a call stands for."""
    names, table = known
    answer = table.get(name)
    if name in names and not isinstance(answer, Refused):
        if not isinstance(answer, Same):
            return {name: value}
        if answer.may_be_none and value is None:
            return {}
        return {name: value if answer.read is None else answer.read(value)}
    match answer:
        case Translated():
            settings = answer.read(value, given)
            if settings.keys() <= names:
                return settings
        case NotNeeded():
            notice(f"{where}: not needed; {answer.why}")
            return {}
        case Refused() if value in answer.harmless:
            return {}
        case Refused():
            raise ConfigError(f"{where} is not supported; {answer.instead}")
    near = difflib.get_close_matches(name, [*names, *table], n=1, cutoff=0.6)
    cure = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{where}: there is no such setting{cure}")
