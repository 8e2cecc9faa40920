"""From settings, or what Python hands over, to prepared groups. Imports no torch, as `ahead_worker` needs none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from burnish.console import notice
from burnish.data.audit import note_shared_prompts
from burnish.data.followers import Sets
from burnish.data.prepare import GroupKind, Prepared, data_cache_dir, prepare_groups
from burnish.data.rows import RowSource
from burnish.data.sources import eval_sets_of, find_eval_sets, load_rows, rows_of
from burnish.errors import ConfigError, DataError


def open_rows(config: Any, train: Any = None, held_out: Any = None) -> tuple[RowSource, dict[str, RowSource]]:
    """Open the rows to train on, and the sets to evaluate on by their names.

    Args:
        config: settings of data, and eval_strategy.
        train: rows that stand in for those of the settings.
        held_out: the same for evaluation.

    Raises:
        ConfigError: no data set is named.
        DataError: as load_rows.
    """
    if train is None and config.dataset_name is None:
        raise ConfigError("--dataset_name is missing: give a hub id, a file, or a folder of rows.")
    rows = load_rows(config) if train is None else rows_of(train, limit=config.max_train_samples)
    is_named = config.eval_data is not None or config.eval_dataset_name is not None
    if held_out is not None:
        return rows, eval_sets_of(held_out, limit=config.max_eval_samples)
    if config.eval_strategy != "no" and (train is None or is_named):
        return rows, find_eval_sets(config)
    return rows, {}


def prepare_data(
    config: Any, tokenizer: Any, kind: GroupKind, rejected_path: Path | None, train: Any = None, held_out: Any = None
) -> Sets:
    """Prepare training groups, and the sets of evaluation groups that are not empty.

    Args:
        config: settings of data, and eval_strategy.
        tokenizer: fast; with a chat template if rows are conversations.
        kind: what the method learns from.
        rejected_path: file that unusable rows are added to.
        train: as in open_rows.
        held_out: as in open_rows.

    Raises:
        DataError: nothing is left to train on.
        ConfigError: no data set is named.
    """
    rows, eval_rows = open_rows(config, train, held_out)
    options: dict[str, Any] = {"kind": kind, "cache_dir": data_cache_dir(config), "rejected_path": rejected_path}
    prepared = prepare_groups(rows, tokenizer, config, **options)
    notice(f"data: {prepared.report.one_line()}")
    if len(prepared.groups) == 0:
        raise DataError(f"{rows.name}: no row is left to train on ({prepared.report.one_line()}).")
    sets: dict[str, Prepared] = {}
    for name, rows in eval_rows.items():
        sets[name] = prepare_groups(rows, tokenizer, config, **options)
        note_shared_prompts(sets[name].report, sets[name].groups, prepared.groups)
        notice(f"evaluation data{name and f' {name}'}: {sets[name].report.one_line()}")
    return prepared, {name: one for name, one in sets.items() if len(one.groups)}
