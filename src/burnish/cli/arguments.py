"""From a command line and YAML files to a method's settings.

What was written is read in layers, files first, then flags, each key answered by the method's own settings or by the
table of TRL's: both spellings take the same way, whether they came from a file or from a flag. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from burnish.cli.methods import methods_with
from burnish.cli.values import read_scalar, read_value, refuse_bare_list, strip_none
from burnish.cli.words import Written, read_yaml, split_words
from burnish.errors import ConfigError
from burnish.trl_flags import table_of
from burnish.trl_flags.kinds import NotNeeded, Refused, Same, Table, Translated

T = TypeVar("T")

_SHORT_FOR = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "global_batch_size",
    "model": "model_name_or_path",
    "dataset": "dataset_name",
    "data": "dataset_name",
    "output": "output_dir",
    "lora": "use_peft",
    "resume": "resume_from_checkpoint",
    "threads": "num_threads",
}
"""Names that other tools use and that no spelling distance leads home."""


@dataclasses.dataclass(frozen=True)
class Parsed(Generic[T]):
    """What a command line asks for."""

    config: T
    """The settings, checked."""
    notes: list[str]
    """Lines to tell the user: what was not needed, and why."""
    given: set[str]
    """Names of our settings that a file or a flag has set."""
    environment: dict[str, str]
    """Variables from a file's `env:`, to be set before anything heavy is imported."""


def parse_arguments(argv: list[str], config_type: type[T], *, table: Table | None = None) -> Parsed[T]:
    """Read flags over the files that `--config` names (the last wins) into `config_type`.

    Args:
        argv: the words after the method's name.
        config_type: a dataclass of settings, such as DPOConfig.
        table: answers to keys that are not fields of `config_type`; None takes those of its method.

    Raises:
        ConfigError: an unknown, misspelt, refused or contradictory key, or a value of the wrong type or range.
    """
    words = split_words(argv)
    layers = [read_yaml(path) for path in config_files(words)]
    layers.append([written for written in words if written.key != "config"])
    reader = Reader(config_type, table_of(config_type) if table is None else table)
    for layer in layers:
        reader.read_layer(layer)
    refuse_trust_from_files(reader)
    config = config_type(**reader.settings)
    return Parsed(config, reader.notes + _idle(config, reader.settings), set(reader.settings), reader.environment)


def refuse_trust_from_files(reader: Reader) -> None:
    """Only a flag may have a stranger's code run: settings files are passed on with runs and models."""
    where = reader.places.get("trust_remote_code", "--")
    if reader.settings.get("trust_remote_code") and not where.startswith("--"):
        raise ConfigError(
            f"{where}: a file can't ask for this; if you trust the model's code, give the flag --trust_remote_code"
        )


def config_files(words: list[Written]) -> list[Path]:
    """The YAML files that `--config` names, in order. Raises ConfigError where it names none."""
    paths: list[Path] = []
    for written in words:
        if written.key == "config":
            if not written.value:
                raise ConfigError("--config needs the path of a YAML file")
            paths.extend(Path(word).expanduser() for word in written.value)
    return paths


class Reader:
    """Collects our settings, layer by layer; later layers win."""

    def __init__(self, config_type: type, table: Table) -> None:
        fields = [field.name for field in dataclasses.fields(config_type) if field.init]
        hints = typing.get_type_hints(config_type)
        self.hints = {name: hints[name] for name in fields}
        self.table = table
        self.settings: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        """Setting → where its value was written."""
        self.notes: list[str] = []
        self.environment: dict[str, str] = {}

    def knows(self, written: Written) -> bool:
        """Whether a written setting, or the one that its `no_` denies, is a field or has an answer."""
        keys = {written.key, written.key.removeprefix("no_")}
        return bool(keys & self.hints.keys() or keys & self.table.keys() or keys == {"env"})

    def read_layer(self, layer: list[Written]) -> None:
        """Add one layer's settings over what there is."""
        layer = [self._without_no(written) for written in layer]
        plain = {written.key: read_scalar(written.value) for written in layer}
        last: dict[str, Written] = {}
        for written in layer:
            last[written.key] = self._joined(last.get(written.key), written)
        found: dict[str, tuple[Any, str]] = {}
        for written in last.values():
            for ours in self._answer(written, plain):
                value = read_value(ours, self.hints[ours.key])
                if ours.key in found and found[ours.key][0] != value:
                    both = f"{found[ours.key][1]} and {ours.where}"
                    raise ConfigError(f"{both} ask for different values of {ours.key}; keep one")
                found[ours.key] = (value, ours.where)
        self.settings.update({name: value for name, (value, _) in found.items()})
        self.places.update({name: where for name, (_, where) in found.items()})

    def _joined(self, before: Written | None, written: Written) -> Written:
        """The last of a flag given twice; NAME=VALUE words of all of them, where the setting is a mapping."""
        takes_pairs = typing.get_origin(strip_none(self.hints.get(written.key))[0]) is dict
        if not (takes_pairs and written.is_flag):
            return written
        words = [*([] if before is None else before.value), *written.value]
        names = [word.partition("=")[0] for word in words]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{written.where} {name} is given twice; keep one")
        return dataclasses.replace(written, value=words)

    def _without_no(self, written: Written) -> Written:
        """`--no_key` as `--key False`, for keys that exist."""
        positive = written.key.removeprefix("no_")
        if written.key in self.hints or written.key in self.table or positive == written.key or written.value != []:
            return written
        if self.hints.get(positive) is bool or (positive not in self.hints and positive in self.table):
            return Written(positive, False, written.where)
        return written

    def _answer(self, written: Written, plain: dict[str, Any]) -> Iterable[Written]:
        """Our settings that a written one stands for."""
        answer = self.table.get(written.key)
        if written.key in self.hints and not isinstance(answer, Refused):
            refuse_bare_list(written, self.hints[written.key])
            if isinstance(answer, Same) and answer.may_be_none and plain[written.key] is None:
                return []
            if isinstance(answer, Same) and answer.read is not None:
                return [self._reread(written, answer)]
            return [written]
        if written.key == "env" and not written.is_flag:
            self.environment.update(_environment(written))
            return []
        value = plain[written.key]
        match answer:
            case Translated():
                settings = answer.read(value, plain)
                if not self.hints.keys() >= settings.keys():
                    raise self.unknown(written)
                return [Written(name, ours, f"{written.where} (as {name})") for name, ours in settings.items()]
            case NotNeeded():
                self.notes.append(f"{written.where}: not needed; {answer.why}")
                return []
            case Refused():
                if value in answer.harmless:
                    return []
                shown = "" if value is True else f" {value}"
                raise ConfigError(f"{written.where}{shown} is not supported; {answer.instead}")
            case _:
                raise self.unknown(written)

    def _reread(self, written: Written, answer: Same) -> Written:
        """TRL's value as one of ours, told where the answer wants it told."""
        assert answer.read is not None
        ours = dataclasses.replace(written, value=answer.read(written.value))
        if answer.told and ours.value != written.value:
            self.notes.append(f"{written.where}: {answer.note}")
        return ours

    def unknown(self, written: Written, names: Sequence[str] = ()) -> ConfigError:
        """The error for a setting that there is not, with the nearest of those that there are and of `names`."""
        key = written.key
        others = methods_with(key)
        if others:
            users = " and ".join(f"burnish {name}" for name in others)
            return ConfigError(f"{written.where}: a setting of {users}, which this command does not use; leave it out")
        known = [*self.hints, *self.table, *names]
        near = [_SHORT_FOR[key]] if key in _SHORT_FOR else difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        cure = f"did you mean {near[0]}?" if near else "`--help-all` lists all settings"
        return ConfigError(f"{written.where}: there is no such setting; {cure}")


def _environment(written: Written) -> dict[str, str]:
    if not isinstance(written.value, dict):
        raise ConfigError(f"{written.where}: must be settings of the form NAME: value")
    return {str(name): str(value) for name, value in written.value.items()}


def _idle(config: Any, settings: dict[str, Any]) -> list[str]:
    """Lines about adapter settings that wait for `use_peft`: TRL trains all weights then, without a word."""
    if getattr(config, "use_peft", True):
        return []
    names = [name for name in settings if name.startswith("lora_") or name in ("use_dora", "use_rslora")]
    changed = [name for name in names if settings[name] != _default(type(config), name)]
    return [f"{', '.join(changed)}: no effect without --use_peft; all weights are trained"] if changed else []


def _default(config_type: type, name: str) -> Any:
    field = next(field for field in dataclasses.fields(config_type) if field.name == name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
