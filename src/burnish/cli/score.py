"""`burnish score MODEL DATA OUT`: the rewards that a reward model gives the completions of each row."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.cli.arguments import parse_arguments
from burnish.cli.help import print_help
from burnish.console import is_main_process, notice
from burnish.data.settings import DataSettings, check_data_settings
from burnish.errors import EXIT_DONE, ConfigError
from burnish.models.settings import ModelSettings, check_model_settings

USAGE = "burnish score RUN/model pairs.jsonl scored.jsonl"


@dataclass(kw_only=True)
class ScoreConfig(DataSettings, ModelSettings):
    """Settings of `burnish score`: the reward model, and the rows."""

    max_tokens_per_micro_batch: int = 2048
    """Tokens, padding included, computed at once; ≥ 1."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is out of range."""
        check_data_settings(self)
        check_model_settings(self)


def run(argv: list[str]) -> int:
    """Run the command: model, rows and the file to write as first words, then flags."""
    if "--help" in argv or "-h" in argv or "--help-all" in argv:
        print_help("score", ScoreConfig, everything="--help-all" in argv)
        return EXIT_DONE
    config, out = read_words(argv)
    count = score_rows(config, out)
    notice(f"{count:,} rows with their rewards: {argv[2]}")
    return EXIT_DONE


def read_words(argv: list[str]) -> tuple[ScoreConfig, Path]:
    """The settings and the file to write.

    Raises:
        ConfigError: a word is missing or wrong, or the file to write exists.
    """
    argv = [word for word in argv if word != "--debug"]  # main's own
    named = argv[:3]
    if len(named) < 3 or any(word.startswith("-") for word in named):
        raise ConfigError(f"burnish score takes a model, rows and the file to write: {USAGE}")
    model, data, out = named
    config = parse_arguments(["--model_name_or_path", model, "--dataset_name", data, *argv[3:]], ScoreConfig).config
    if Path(out).expanduser().exists():
        raise ConfigError(f"{out} exists already; name another file")
    return config, Path(out).expanduser()


def score_rows(settings: ScoreConfig, out: Path) -> int:
    """Write each row of the training split with `rewards` and, for pairs, `margin` = chosen - rejected reward.

    Of several ranks, the first writes, in the order of the rows.

    Returns:
        Rows written; rows that hold nothing to score are left out.
    """
    from burnish.data.sources import load_rows
    from burnish.methods.scoring_rows import score_groups

    rows = load_rows(settings)
    rewards = score_groups(rows, settings, max_tokens=settings.max_tokens_per_micro_batch)
    lines = [
        json.dumps(_with_rewards(row, rewards[place.row]), ensure_ascii=False)
        for row, place in rows
        if isinstance(row, dict) and place.row in rewards
    ]
    if not is_main_process():
        return len(lines)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.tmp")
    draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    draft.replace(out)
    return len(lines)


def _with_rewards(row: dict[str, Any], rewards: list[float]) -> dict[str, Any]:
    """A row with what was scored; the margin is what `burnish dpo --loss_type odpo` reads, chosen minus rejected."""
    better = _better_of_two(row) if len(rewards) == 2 else None
    margin = {} if better is None else {"margin": rewards[better] - rewards[1 - better]}
    return {**row, "rewards": rewards, **margin}


def _better_of_two(row: dict[str, Any]) -> int | None:
    """Which of a row's two completions is the chosen one; None where they tie."""
    from burnish.data.formats.recognise import recognise

    ranking = recognise(row).ranking or (0, 1)
    return None if ranking[0] == ranking[1] else int(ranking[1] < ranking[0])
