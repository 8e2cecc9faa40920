"""Settings as they were written: the words of a command line, or the keys of a YAML file. No types yet."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from burnish.errors import ConfigError

_NUMBER = re.compile(r"-(\d|\.\d|inf$|nan$)")


@dataclass(frozen=True)
class Written:
    """One setting as it was written."""

    key: str
    """The name with underscores, without dashes in front."""
    value: Any
    """The list of words after a flag, or what YAML makes of the value."""
    where: str
    """How an error names it: `--beta`, or `run.yaml:3: beta`."""

    @property
    def is_flag(self) -> bool:
        """Whether it stands on the command line, where a flag may stand alone."""
        return self.where.startswith("--")


def split_words(argv: list[str]) -> list[Written]:
    """Cut a command line into flags and the words after each: `--key word …`, `--key=word`, dashes or underscores.

    Negative numbers are words, not flags. Raises ConfigError for words before the first flag and for short flags.
    """
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            flag, equals, value = word.partition("=")
            found.append((flag, [value] if equals else []))
        elif word.startswith("-") and not _NUMBER.match(word) and word != "-":
            raise ConfigError(
                f"{word}: flags begin with two dashes; a value that begins with one is written --key={word}"
            )
        elif not found:
            raise ConfigError(f"'{word}' stands before any flag; settings are written --key value")
        else:
            found[-1][1].append(word)
    return [Written(underscored(flag), words, flag) for flag, words in found]


def underscored(name: str) -> str:
    """`--learning-rate` and `learning-rate` as `learning_rate`."""
    return name.lstrip("-").replace("-", "_")


def read_yaml(path: Path) -> list[Written]:
    """The keys of a YAML file in their order. Raises ConfigError with file and line for whatever is wrong with it."""
    node, loader = _compose(path)
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: not a list of settings; write one `key: value` a line")
    written: list[Written] = []
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = underscored(str(key_node.value))
        if key in seen:
            raise ConfigError(f"{path}:{line}: {key} was set in line {seen[key]} already; keep one of the two")
        seen[key] = line
        written.append(Written(key, _construct(loader, value_node, path), f"{path}:{line}: {key}"))
    return written


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key that stands twice in a nested mapping as well."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if str(key_node.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value} is set twice", key_node.start_mark
                )
            seen.add(str(key_node.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)  # YAML 1.1 takes 5e-7 for text; everyone else takes it for a number


def read_text(text: str) -> Any:
    """What YAML makes of a word. Raises yaml.YAMLError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _compose(path: Path) -> tuple[yaml.Node | None, _Loader]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {path}: not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror})") from None
    try:
        loader = _Loader(text)
        return loader.get_single_node(), loader
    except yaml.YAMLError as error:
        raise _yaml_error(error, path) from None


def _construct(loader: _Loader, node: yaml.Node, path: Path) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError) as error:
        raise _yaml_error(error, path, line=node.start_mark.line) from None


def _yaml_error(error: Exception, path: Path, line: int | None = None) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    place = mark.line if mark is not None else line
    position = "" if place is None else f":{place + 1}"
    return ConfigError(f"{path}{position}: not readable as YAML: {getattr(error, 'problem', None) or error}")
