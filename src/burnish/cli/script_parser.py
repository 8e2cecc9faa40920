"""TRL's parser for scripts: one command line for several dataclasses, with YAML files and TRL's flags."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from burnish.cli.arguments import Reader, config_files, refuse_trust_from_files
from burnish.cli.help import print_help
from burnish.cli.words import Written, read_yaml, split_words
from burnish.console import notice
from burnish.errors import EXIT_DONE, BurnishError, ConfigError
from burnish.trl_flags import TABLES, Table


class TrlParser:
    """`TrlParser((ScriptArguments, DPOConfig, ModelConfig)).parse_args_and_config()`, as TRL's scripts write it.

    A flag reaches every dataclass that has it. Flags of TRL's that burnish answers by another name, finds unnecessary
    or refuses are answered as `burnish dpo` would. Dataclasses of your own may stand beside them.
    """

    def __init__(self, dataclass_types: type | Iterable[type] | None = None, **_: Any) -> None:
        """Take one dataclass or several; what argparse takes besides (prog, description) is not needed.

        Raises:
            ConfigError: no dataclass, or one with a field named config, which is the flag of the YAML file.
        """
        given = [dataclass_types] if isinstance(dataclass_types, type) else list(dataclass_types or ())
        for one in given:
            if not dataclasses.is_dataclass(one):
                raise ConfigError(f"TrlParser: {one!r} is no dataclass")
            if any(field.name == "config" for field in dataclasses.fields(one)):
                raise ConfigError(f"{one.__name__}.config: --config names the YAML file; call the field otherwise")
        self.dataclass_types: list[Any] = given

    def parse_args_and_config(
        self,
        args: Iterable[str] | None = None,
        return_remaining_strings: bool = False,
        fail_with_unknown_args: bool = True,
        separate_remaining_strings: bool = False,
    ) -> tuple[Any, ...]:
        """Give one object for each dataclass, read from the files that --config names and from the flags over them.

        An error ends the script as it ends a command: one or two lines, and the exit code. As in TRL, evaluation is
        off unless --eval_strategy asks for it.

        Args:
            args: the words; None takes those of the script.
            return_remaining_strings: give unknown settings back at the end, as words, instead of refusing them.
            fail_with_unknown_args: whether unknown keys of files are errors; False tells each in a line.
            separate_remaining_strings: give those of files and those of flags apart.
        """
        argv = list(sys.argv[1:] if args is None else args)
        if {"-h", "--help"} & set(argv):
            self._print_help()
            raise SystemExit(EXIT_DONE)
        try:
            return self._parse(argv, return_remaining_strings, fail_with_unknown_args, separate_remaining_strings)
        except BurnishError as error:
            if args is not None:
                raise
            notice(f"{Path(sys.argv[0]).name}: {error}")
            raise SystemExit(error.exit_code) from error

    def parse_args_into_dataclasses(
        self, args: Iterable[str] | None = None, return_remaining_strings: bool = False
    ) -> tuple[Any, ...]:
        """Do as parse_args_and_config does; `--config` may be there or not."""
        return self.parse_args_and_config(args, return_remaining_strings)

    def _parse(self, argv: list[str], gives_rest: bool, is_strict: bool, separates: bool) -> tuple[Any, ...]:
        words = split_words(argv)
        layers = [read_yaml(path) for path in config_files(words)]
        layers.append([written for written in words if written.key != "config"])
        readers = [Reader(one, _table(one)) for one in self.dataclass_types]
        from_files: list[str] = []
        from_flags: list[str] = []
        for layer in layers:
            known, unknown = _divide(layer, readers)
            for reader in readers:
                reader.read_layer([written for written in known if reader.knows(written)])
            for written in unknown:
                if gives_rest:
                    (from_flags if written.is_flag else from_files).extend(_as_words(written))
                elif written.is_flag or is_strict:
                    raise readers[-1].unknown(written, [name for reader in readers for name in reader.hints])
                else:
                    notice(f"{written.where}: not a setting of this script; left out")
        made = tuple(_make(one, reader) for one, reader in zip(self.dataclass_types, readers, strict=True))
        if not gives_rest:
            return made
        return (*made, from_files, from_flags) if separates else (*made, from_files + from_flags)

    def _print_help(self) -> None:
        for one in self.dataclass_types:
            method = getattr(one, "method", None)
            if method is not None:
                print_help(method, one, everything=True)
            else:
                names = ", ".join(f"--{field.name}" for field in dataclasses.fields(one))
                print(f"{one.__name__}: {names}")


def _table(dataclass_type: type) -> Table:
    """TRL's names are answered once, by the method's settings."""
    return TABLES.get(getattr(dataclass_type, "method", ""), {})


def _divide(layer: Sequence[Written], readers: Sequence[Reader]) -> tuple[list[Written], list[Written]]:
    is_known: Callable[[Written], bool] = lambda written: any(reader.knows(written) for reader in readers)  # noqa: E731
    return [one for one in layer if is_known(one)], [one for one in layer if not is_known(one)]


def _as_words(written: Written) -> list[str]:
    values = written.value if isinstance(written.value, list) else [written.value]
    return [f"--{written.key}", *map(str, values)]


def _make(dataclass_type: Any, reader: Reader) -> Any:
    """An object of what was read; told what is not needed, and with TRL's default of eval_strategy."""
    refuse_trust_from_files(reader)
    os.environ.update(reader.environment)
    for note in reader.notes:
        notice(note)
    settings = dict(reader.settings)
    if hasattr(dataclass_type, "method"):
        settings.setdefault("eval_strategy", "no")
    for field in dataclasses.fields(dataclass_type):
        has_none = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and has_none and field.name not in settings:
            raise ConfigError(f"--{field.name} is missing: {dataclass_type.__name__} has no default for it")
    return dataclass_type(**settings)
