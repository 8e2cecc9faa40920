"""`burnish check DATA [--model_name_or_path M]`: what a run would make of every row, before it is started."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from burnish.cli.arguments import parse_arguments
from burnish.cli.help import print_help
from burnish.console import notice
from burnish.data.settings import DataSettings, check_data_settings
from burnish.errors import EXIT_DONE, ConfigError, DataError
from burnish.models.settings import ModelSettings, check_model_settings
from burnish.ranges import check_choices
from burnish.trl_flags import TRL_FLAGS
from burnish.trl_flags.kinds import renamed

STANDARD_OUTPUT = "-"
TABLE = {**TRL_FLAGS, "model": renamed("model_name_or_path")}


@dataclass(kw_only=True)
class CheckSettings:
    """What to judge rows by, and where the figures go."""

    kind: Literal["auto", "preference", "unpaired", "sft", "ranking"] = "auto"
    """What a method learns from: pairs (dpo, reward), labelled completions (kto), conversations or texts (sft), ranked
    lists; auto takes what most of the first 1,000 rows are."""
    json: str | None = None
    """File that all figures are written to as JSON; - prints them instead of the tables."""


@dataclass(kw_only=True)
class CheckConfig(CheckSettings, DataSettings, ModelSettings):
    """Settings of `burnish check`: those of a run that decide what becomes of rows."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is out of range."""
        check_choices(self, CheckSettings)
        check_data_settings(self)
        check_model_settings(self)


def run(argv: list[str]) -> int:
    """Run the command: the data set as first word (or --dataset_name), then flags; 2 where a run would stop."""
    if "--help" in argv or "-h" in argv or "--help-all" in argv:
        print_help("check", CheckConfig, everything="--help-all" in argv)
        return EXIT_DONE
    argv = [word for word in argv if word != "--debug"]  # main's own
    named = argv[:1] if argv and not argv[0].startswith("-") else []
    words = [*(["--dataset_name", *named] if named else []), *argv[len(named) :]]
    parsed = parse_arguments(words, CheckConfig, table=TABLE)
    for note in parsed.notes:
        notice(note)
    return run_check(parsed.config)


def run_check(settings: CheckConfig) -> int:
    """Audit the rows and print what was found; the exit code.

    Raises:
        ConfigError: no data set is named, or the JSON file cannot be written.
        DataError: the data set cannot be read at all.
    """
    if settings.dataset_name is None:
        raise ConfigError("name the data set: burnish check rows.jsonl --model_name_or_path M")
    from burnish.data.check.audit import check_data
    from burnish.data.kinds import GroupKind
    from burnish.data.sources import find_eval_rows, load_rows
    from burnish.models.tokenizer import embeddings_of, load_tokenizer

    if settings.json not in (None, STANDARD_OUTPUT):
        _try_writing(Path(settings.json))
    if settings.eval_data is not None:
        raise ConfigError("--eval_data: `burnish check` looks at one set; give it with --eval_dataset_name FILE")
    rows, eval_rows = load_rows(settings), find_eval_rows(settings)
    tokenizer = load_tokenizer(settings, settings) if settings.model_name_or_path else None
    kind: Any = settings.kind if settings.kind in get_args(GroupKind) else None
    check = check_data(
        rows, eval_rows, tokenizer, settings, kind=kind, num_embeddings=embeddings_of(settings, settings)
    )
    if settings.json == STANDARD_OUTPUT:
        print(_as_json(check))
    else:
        from burnish.cli.check_tables import print_check
        from burnish.cli.terminal import open_console

        print_check(check, open_console())
        if settings.json is not None:
            Path(settings.json).expanduser().write_text(_as_json(check) + "\n", encoding="utf-8")
    return DataError.exit_code if check.errors else EXIT_DONE


def _as_json(check: Any) -> str:
    return json.dumps(check.as_dict(), indent=1, ensure_ascii=True)


def _try_writing(path: Path) -> None:
    try:
        with path.expanduser().open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(f"--json {path} can't be written: {error.strerror}; give another file") from error
