"""Where rows come from: files, folders, folders saved by datasets, hubs, and data sets in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from burnish.data.cache import file_digest
from burnish.data.digests import sha256_of
from burnish.data.files import SUFFIXES, file_format, number_rows, read_file
from burnish.data.hubs import fetch_dataset
from burnish.data.rows import Place, ReadRow, RowSource
from burnish.data.settings import DataSettings, check_set_names
from burnish.errors import ConfigError, DataError

SPLIT_PREFIXES = ("train", "test", "eval", "validation")
HELD_OUT = ("test", "eval", "validation")
Splits = Mapping[str, Callable[[], RowSource]]
"""Split → how its rows are opened. A single file is the split "train" of itself."""


def load_rows(settings: DataSettings, *, split: str | None = None) -> RowSource:
    """Open the training rows of settings.dataset_name, limited to max_train_samples.

    Args:
        settings: dataset_name, dataset_config, dataset_train_split, hub and max_train_samples are used.
        split: another split than dataset_train_split.

    Raises:
        DataError: no such file or split, or a folder without rows.
        HubError: the hub is out of reach.
        ConfigError: no data set is named, or modelscope is not installed.
    """
    if settings.dataset_name is None:
        raise ConfigError("--dataset_name is missing: give a hub id, a file, or a folder of rows")
    splits = _open_splits(settings.dataset_name, settings)
    wanted = split or settings.dataset_train_split
    return _choose(splits, wanted, settings.dataset_name, "--dataset_train_split").limited(settings.max_train_samples)


def find_eval_rows(settings: DataSettings) -> RowSource | None:
    """Open the evaluation rows: those of eval_dataset_name, else the test split of the training source, if it has one.

    A folder of files may call its test split eval or validation. A single file has no test split.

    Raises:
        As load_rows; also DataError where a split is asked for by name and absent.
    """
    wanted = settings.dataset_test_split
    if settings.eval_dataset_name is not None:
        return _eval_rows_of(settings.eval_dataset_name, settings)
    if settings.dataset_name is None:
        return None
    splits = _open_splits(settings.dataset_name, settings)
    found = _held_out(splits, wanted)
    if found is None and wanted == DataSettings.dataset_test_split:
        return None
    if found == settings.dataset_train_split:
        return None
    return _choose(splits, found or wanted, settings.dataset_name, "--dataset_test_split").limited(
        settings.max_eval_samples
    )


def find_eval_sets(settings: DataSettings) -> dict[str, RowSource]:
    """Open the sets of eval_data by their names; without them the rows of `find_eval_rows`, under an empty name.

    Raises:
        As find_eval_rows.
    """
    if settings.eval_data is not None:
        return {name: _eval_rows_of(source, settings) for name, source in settings.eval_data.items()}
    rows = find_eval_rows(settings)
    return {} if rows is None else {"": rows}


def _eval_rows_of(source: str, settings: DataSettings) -> RowSource:
    """The only split of a source, else its held-out one."""
    splits, wanted = _open_splits(source, settings), settings.dataset_test_split
    chosen = next(iter(splits)) if len(splits) == 1 else _held_out(splits, wanted) or wanted
    return _choose(splits, chosen, source, "--dataset_test_split").limited(settings.max_eval_samples)


def eval_sets_of(datasets: Any, *, limit: int | None = None) -> dict[str, RowSource]:
    """Open evaluation rows that are in memory: one set under an empty name, or a dict of sets by their names.

    Raises:
        As rows_of; ConfigError for a name that makes no part of a metric's name.
    """
    if not isinstance(datasets, Mapping):
        return {"": rows_of(datasets, limit=limit)}
    check_set_names(datasets, "eval_dataset")
    return {str(name): rows_of(rows, limit=limit, name=f"evaluation set {name}") for name, rows in datasets.items()}


def rows_of(dataset: Any, *, limit: int | None = None, split: str = "train", name: str = "data set") -> RowSource:
    """Open rows that are in memory: a datasets.Dataset or DatasetDict, or a list of dicts.

    Args:
        dataset: the rows; of a DatasetDict, `split` is taken.
        limit: use only this many rows from the start.
        split: which split of a DatasetDict.
        name: what places call the data set.

    Raises:
        DataError: another type, or no such split.
    """
    if isinstance(dataset, RowSource):
        return dataset.limited(limit)
    if isinstance(dataset, Mapping):
        openers = {str(key): partial(rows_of, value, name=f"{name}[{key}]") for key, value in dataset.items()}
        return _choose(openers, split, name, "--dataset_train_split").limited(limit)
    if isinstance(dataset, list | tuple):
        return _rows_of_list(dataset, name).limited(limit)
    if hasattr(dataset, "with_format") and hasattr(dataset, "_fingerprint"):
        return _rows_of_dataset(dataset, name).limited(limit)
    raise DataError(
        f"rows come as a {type(dataset).__name__}; give a datasets.Dataset, a list of dicts, or a path "
        "(streaming is not supported: save the rows to a file)"
    )


def _open_splits(name: str, settings: DataSettings) -> Splits:
    path = Path(name).expanduser()
    if path.is_file():
        return {"train": partial(_rows_of_files, [path])}
    if path.is_dir():
        return _folder_splits(path)
    if _looks_local(name):
        raise DataError(f"no file or folder {name}: give the path of a file of rows, a folder, or a hub id")
    fetched = fetch_dataset(name, settings.dataset_config, settings.hub)
    return {str(split): partial(rows_of, rows, name=f"{name}[{split}]") for split, rows in fetched.items()}


def _looks_local(name: str) -> bool:
    rooted = name.startswith((".", "/", "~")) or "\\" in name or name.endswith("/") or name.count("/") > 1
    return rooted or file_format(Path(name)) is not None


def _folder_splits(folder: Path) -> Splits:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved_splits(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and file_format(path) is not None)
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not files:
        raise DataError(f"{folder} holds no file of rows ({', '.join(SUFFIXES)})")
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split_of(path, folder), []).append(path)
    if set(by_split) == {""}:
        return {"train": partial(_rows_of_files, files, folder)}
    return {split: partial(_rows_of_files, paths, folder) for split, paths in by_split.items() if split}


def _split_of(path: Path, folder: Path) -> str:
    """Return the split that the file's name, or its subfolder's, begins with; empty for none."""
    for part in (path.name, *path.relative_to(folder).parts[:-1]):
        for prefix in SPLIT_PREFIXES:
            if part.lower().startswith(prefix):
                return prefix
    return ""


def _saved_splits(folder: Path) -> Splits:
    from datasets import load_from_disk

    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged folder makes the library raise
        raise DataError(f"{folder} is no whole folder saved by datasets: {error}") from error
    if isinstance(saved, Mapping):
        return {str(split): partial(rows_of, rows, name=f"{folder}[{split}]") for split, rows in saved.items()}
    return {"train": partial(rows_of, saved, name=str(folder))}


def _held_out(splits: Splits, wanted: str) -> str | None:
    if wanted in splits:
        return wanted
    if wanted != DataSettings.dataset_test_split:
        return None
    return next((split for split in HELD_OUT if split in splits), None)


def _choose(splits: Splits, wanted: str, name: str, flag: str) -> RowSource:
    if wanted not in splits:
        raise DataError(f"{name} has no split {wanted}; it has {', '.join(splits)}: {flag} {next(iter(splits))}")
    return splits[wanted]()


def _rows_of_files(paths: list[Path], folder: Path | None = None) -> RowSource:
    names = [str(path) for path in paths]
    for path in paths:
        if file_format(path) is None:
            raise DataError(f"{path} is no file of rows; known: {', '.join(SUFFIXES)} (text files also with .gz)")
    try:
        fingerprint = sha256_of(*(f"{path.name} {file_digest(path)}" for path in paths))
    except OSError as error:
        raise DataError(f"{error.filename or paths[0]} can't be read: {error.strerror or error}") from error

    def read() -> Iterator[ReadRow]:
        return chain.from_iterable(read_file(path, name) for path, name in zip(paths, names, strict=True))

    return RowSource(str(folder or paths[0]), fingerprint, read, _count_lines(paths))


def _count_lines(paths: list[Path]) -> int | None:
    """Return the rows of JSON Lines files, which are the lines that are not blank; None for other files."""
    total = 0
    for path in paths:
        if path.suffix.lower() not in {".jsonl", ".ndjson"}:
            return None
        with path.open("rb") as file:
            total += sum(1 for line in file if not line.isspace())
    return total


def _rows_of_list(rows: Iterable[Any], name: str) -> RowSource:
    listed = list(rows)
    for number, row in enumerate(listed, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}, row {number} is a {type(row).__name__}, not a dict")
    digest = hashlib.sha256()
    for row in listed:
        digest.update(_as_text(row).encode(errors="surrogatepass") + b"\n")

    def read() -> Iterator[ReadRow]:
        return ((row, Place(name, number)) for number, row in enumerate(listed, start=1))

    return RowSource(name, digest.hexdigest(), read, len(listed))


def _as_text(row: Mapping[Any, Any]) -> str:
    try:
        return json.dumps(row, default=_in_full)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, rows that hold themselves
        return repr(row)


def _in_full(value: Any) -> Any:
    """Return what JSON can hold of another library's value; its str() may leave out the middle of a long array."""
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def _rows_of_dataset(dataset: Any, name: str) -> RowSource:
    def read() -> Iterator[ReadRow]:
        tables = dataset.with_format("arrow").iter(batch_size=1000)
        return number_rows((batch for table in tables for batch in table.to_batches()), name)

    return RowSource(name, sha256_of("dataset", dataset._fingerprint), read, len(dataset))
