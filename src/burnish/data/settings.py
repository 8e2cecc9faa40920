"""Settings of the data room: where rows come from, how they become token ids. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from burnish.errors import ConfigError
from burnish.ranges import COUNT, Range, check_choices, check_ranges, setting_error

TokenizerBackend = Literal["auto", "huggingface"]


@dataclass(kw_only=True)
class DataSettings:
    """Which rows, which of their tokens, and what happens to rows that do not fit."""

    dataset_name: str | None = None
    """A hub id, a file (json, jsonl, parquet, csv, arrow; .gz), a folder saved by datasets, or a folder of files."""
    dataset_config: str | None = None
    """Name of the hub data set's configuration."""
    dataset_train_split: str = "train"
    """Split to train on."""
    dataset_test_split: str = "test"
    """Split to evaluate on, where the source has it; a single file is all train."""
    eval_dataset_name: str | None = None
    """Rows to evaluate on from another source; same forms as dataset_name."""
    eval_data: dict[str, str] | None = None
    """Several sets to evaluate on, NAME=SOURCE each; the metrics of each are eval_NAME_loss and so on."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Hub that models and data sets are fetched from when their name is no local path."""
    max_train_samples: int | None = None
    """Use only this many rows from the start of the training split; ≥ 1. None uses all."""
    max_eval_samples: int | None = None
    """Use only this many rows from the start of the evaluation split; ≥ 1. None uses all."""
    max_length: int | None = 1024
    """Longest prompt plus completion, in tokens; ≥ 2. None never truncates."""
    truncation_mode: Literal["keep_start", "keep_end", "drop"] = "keep_start"
    """What to do beyond max_length: cut completions' ends, cut the prompt's start, or drop the row."""
    max_prompt_length: int | None = None
    """Most tokens of a prompt, of which the last are kept; ≥ 1. None is no limit beside max_length."""
    max_completion_length: int | None = None
    """Most tokens of a completion, of which the first are kept; ≥ 1. None is no limit beside max_length."""
    pad_token: str | None = None
    """Token to pad with; by default the tokenizer's own, else its end-of-text token."""
    eos_token: str | None = None
    """Token that ends a plain text, and where the finished model stops; by default the tokenizer's own."""
    chat_template_path: str | None = None
    """A Jinja file (or a folder with a tokenizer) whose chat template replaces the tokenizer's."""
    on_bad_row: Literal["error", "skip"] = "error"
    """What an unparsable or mistyped row does: stop the run, or go to rejected_rows.jsonl."""
    strict_data: bool = False
    """Make over-long prompts, empty completions and identical pairs errors instead of counted drops."""
    dataset_num_proc: int | None = None
    """Processes that render and tokenise; ≥ 1. None uses one process and the tokenizer's own threads."""
    tokenizer_backend: TokenizerBackend = "auto"
    """What tokenises rows: auto takes fastokens where it is installed and its ids are the Hugging Face tokenizer's."""
    data_cache_dir: str | None = None
    """Folder of prepared rows, found again by content; default ~/.cache/burnish/data (or $BURNISH_CACHE/data)."""


@dataclass(kw_only=True)
class CountingSettings:
    """Which tokens supervised tuning learns from."""

    completion_only_loss: bool | None = None
    """Count the completion alone; None does so where a row has a prompt and a completion, False counts prompts too."""
    assistant_only_loss: bool = False
    """Count the assistant's turns alone: by the template's generation markers, else by the borders of turns."""
    dataset_text_field: str = "text"
    """Column that holds plain text."""


RANGES = {
    "max_train_samples": COUNT,
    "max_eval_samples": COUNT,
    "max_length": Range(least=2, whole=True),
    "max_prompt_length": COUNT,
    "max_completion_length": COUNT,
    "dataset_num_proc": COUNT,
}


def check_set_names(names: Iterable[str], where: str) -> None:
    """Raise ConfigError for a name of an evaluation set that makes no good part of a metric's name."""
    for name in names:
        if not re.fullmatch(r"[\w.-]+", str(name)):
            raise ConfigError(f"{where}: {name!r} is no name for a set; use letters, digits, dots, - and _")


def check_data_settings(settings: DataSettings) -> None:
    """Raise ConfigError for the first setting of the data room that is out of range."""
    check_ranges(settings, RANGES)
    check_choices(settings, DataSettings)
    if settings.eval_data is not None and settings.eval_dataset_name is not None:
        raise ConfigError("--eval_data and --eval_dataset_name both say what to evaluate on: keep one")
    check_set_names(settings.eval_data or {}, "--eval_data")
    for name in ("dataset_train_split", "dataset_test_split"):
        if not getattr(settings, name):
            raise setting_error(settings, name, "must be the name of a split")
