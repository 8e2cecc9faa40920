"""Help that is made from the settings themselves: name, kind of value, effect, unit and range, default."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import sys
import textwrap
import typing
from typing import Any, TextIO

from burnish.cli.values import describe

OFTEN_USED = (
    "model_name_or_path", "dataset_name", "eval_dataset_name", "output_dir", "max_length", "learning_rate",
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "global_batch_size", "precision", "device", "eval_strategy", "eval_steps", "save_steps",
    "resume_from_checkpoint", "report_to", "use_peft", "lora_r", "lora_alpha", "dry_run",
)  # fmt: skip
"""Settings that `--help` shows besides the method's own."""

_INDENT = "      "


def print_help(method: str, config_type: type, *, everything: bool, out: TextIO | None = None) -> None:
    """Print the settings of a method to `out` (standard output), no wider than the terminal.

    Args:
        method: the command's name.
        config_type: its dataclass of settings; each dataclass that it is made from is a group.
        everything: all settings by group, instead of the method's own and the most used.
        out: where to print; None is standard output.
    """
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    print("\n".join(_lines(method, config_type, everything, width)), file=out or sys.stdout)


def _lines(method: str, config_type: type, everything: bool, width: int) -> list[str]:
    groups = _groups(config_type)
    own, names = groups[0]
    usage = f"usage: burnish {method} --model_name_or_path MODEL --dataset_name DATA [--setting value ...]"
    lines = [
        *textwrap.wrap(usage, width, subsequent_indent=_INDENT),
        *textwrap.wrap(
            f"burnish {method} --config run.yaml [--setting value ...]",
            width,
            initial_indent="       ",
            subsequent_indent=_INDENT,
        ),
        "",
        *textwrap.wrap(
            "Settings have TRL's names, with underscores or dashes. A switch alone is true; --no_SWITCH is false. "
            "Lists take spaces, commas or [brackets]. Flags win over the file.",
            width,
        ),
    ]
    if everything:
        for group, members in groups:
            lines += _group(_title(group), members, config_type, width)
        return lines
    lines += _group(_title(own), names, config_type, width)
    lines += _group("The most used of the others.", list(OFTEN_USED), config_type, width)
    return [*lines, "", f"All settings: burnish {method} --help-all"]


def _groups(config_type: type) -> list[tuple[type, list[str]]]:
    """The dataclasses that the settings are made from, each with the settings that none before it has."""
    groups: list[tuple[type, list[str]]] = []
    seen: set[str] = set()
    for base in config_type.__mro__[1:]:
        names = [name for name in inspect.get_annotations(base) if name not in seen]
        if dataclasses.is_dataclass(base) and names:
            groups.append((base, names))
            seen.update(names)
    return groups


def _group(title: str, names: list[str], config_type: type, width: int) -> list[str]:
    hints = typing.get_type_hints(config_type)
    docs = field_docs(config_type)
    fields = {field.name: field for field in dataclasses.fields(config_type)}
    lines = ["", *textwrap.wrap(title, width)]
    for name in names:
        if name in fields:
            default = _default(fields[name])
            kind = describe(hints[name]).removesuffix(", or none" if default == "none" else "")
            head = f"--{name}  {kind}; default {default}"
            lines += textwrap.wrap(head, width, initial_indent="  ", subsequent_indent=_INDENT)
            lines += textwrap.wrap(docs[name], width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return lines


def field_docs(config_type: type) -> dict[str, str]:
    """The docstring under each field, of the class and of those that it is made from."""
    from docstring_parser import parse_from_object

    docs: dict[str, str] = {}
    for part in reversed(config_type.__mro__):
        if dataclasses.is_dataclass(part):
            params = parse_from_object(part).params
            docs |= {param.arg_name: " ".join((param.description or "").split()) for param in params}
    return docs


def _title(group: type) -> str:
    return (group.__doc__ or group.__name__).strip().splitlines()[0]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(str(part) for part in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
