"""Rows are found wherever the settings point, with the splits that users expect."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from burnish.data import hubs
from burnish.data.settings import DataSettings
from burnish.data.sources import find_eval_rows, load_rows, rows_of
from burnish.errors import ConfigError, DataError, HubError
from row_builders import pair

ROWS = [
    {"prompt": f"p{n}", "chosen": "a", "rejected": "b", "messages": [{"role": "user", "content": "é"}]}
    for n in range(5)
]


def _load(path: Any, **settings: Any) -> list[dict[str, Any]]:
    source: Any = load_rows(DataSettings(dataset_name=str(path), **settings))
    return [dict(row) for row, _ in source]


def _lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _prompts(source: Any) -> list[str]:
    return [row["prompt"] for row, _ in source]


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    with pa.ipc.new_file(tmp_path / "file.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as stream:
        stream.write_table(table)
    (tmp_path / "rows.jsonl").write_text(_lines(*ROWS))
    (tmp_path / "lines.json").write_text(_lines(*ROWS))
    (tmp_path / "array.json").write_text(json.dumps(ROWS))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(_lines(*ROWS).encode()))
    (tmp_path / "array.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    paths = sorted(path for path in tmp_path.iterdir() if path.is_file())
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    for path in [*paths, tmp_path / "saved"]:
        assert _load(path) == ROWS, path
        assert _load(path, max_train_samples=2) == ROWS[:2]


def test_rows_in_memory_are_sources_too() -> None:
    dataset = Dataset.from_list(ROWS)
    for rows in (ROWS, dataset, DatasetDict({"train": dataset}), dataset.select([0, 1, 2, 3, 4])):
        source = rows_of(rows, limit=3)
        assert [row for row, _ in source] == ROWS[:3]
        assert [place.row for _, place in source] == [1, 2, 3]
        assert source.num_rows == 3


@pytest.mark.parametrize("rows", [7, "text", {1, 2}, [1, 2]])
def test_what_is_no_rows_is_refused(rows: Any) -> None:
    with pytest.raises(DataError, match=r"not a dict|give a datasets\.Dataset"):
        rows_of(rows)


def test_files_of_a_folder_are_split_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "train-00.jsonl").write_text(_lines(ROWS[0]))
    (tmp_path / "train-01.jsonl").write_text(_lines(ROWS[1]))
    (tmp_path / "eval.json").write_text(json.dumps([ROWS[2]]))
    (tmp_path / "README.md").write_text("# rows")
    settings = DataSettings(dataset_name=str(tmp_path))
    assert _prompts(load_rows(settings)) == ["p0", "p1"]
    assert _prompts(find_eval_rows(settings)) == ["p2"]
    (tmp_path / "test.jsonl").write_text(_lines(ROWS[3], ROWS[4]))
    assert _prompts(find_eval_rows(settings)) == ["p3", "p4"]
    assert _prompts(find_eval_rows(DataSettings(dataset_name=str(tmp_path), max_eval_samples=1))) == ["p3"]


def test_a_folder_without_split_names_is_all_train(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"part-{number}.jsonl").write_text(_lines(ROWS[number]))
    settings = DataSettings(dataset_name=str(tmp_path))
    assert _prompts(load_rows(settings)) == ["p0", "p1"]
    assert find_eval_rows(settings) is None


def test_a_single_file_is_all_train_and_can_be_evaluated_on(tmp_path: Path) -> None:
    for name, row in (("a.jsonl", ROWS[0]), ("b.jsonl", ROWS[1])):
        (tmp_path / name).write_text(_lines(row))
    settings = DataSettings(dataset_name=str(tmp_path / "a.jsonl"))
    assert find_eval_rows(settings) is None
    settings.eval_dataset_name = str(tmp_path / "b.jsonl")
    assert _prompts(find_eval_rows(settings)) == ["p1"]


def test_saved_splits_are_chosen_by_name(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS[:3]), "test": Dataset.from_list(ROWS[3:])}).save_to_disk(
        tmp_path / "saved"
    )
    settings = DataSettings(dataset_name=str(tmp_path / "saved"))
    assert _prompts(load_rows(settings)) == ["p0", "p1", "p2"]
    assert _prompts(find_eval_rows(settings)) == ["p3", "p4"]
    assert _prompts(load_rows(settings, split="test")) == ["p3", "p4"]
    with pytest.raises(DataError, match="has no split dev; it has train, test: --dataset_train_split"):
        load_rows(DataSettings(dataset_name=str(tmp_path / "saved"), dataset_train_split="dev"))
    with pytest.raises(DataError, match="has no split dev; it has train, test: --dataset_test_split"):
        find_eval_rows(DataSettings(dataset_name=str(tmp_path / "saved"), dataset_test_split="dev"))


def test_the_split_that_is_trained_on_is_not_evaluated_on(tmp_path: Path) -> None:
    DatasetDict({"test": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert find_eval_rows(DataSettings(dataset_name=str(tmp_path / "saved"), dataset_train_split="test")) is None


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "sub" / "a.jsonl"
    second.parent.mkdir()
    first.write_text(_lines(*ROWS))
    second.write_text(_lines(*ROWS))
    prints = [load_rows(DataSettings(dataset_name=str(path))).fingerprint for path in (first, second)]
    assert prints[0] == prints[1]
    second.write_text(_lines(*ROWS[:4]))
    assert load_rows(DataSettings(dataset_name=str(second))).fingerprint != prints[0]
    limited = load_rows(DataSettings(dataset_name=str(first), max_train_samples=2))
    assert limited.fingerprint != prints[0]


@pytest.mark.parametrize("hold", [list, Dataset.from_list])
def test_the_fingerprint_of_rows_in_memory_follows_every_value(hold: Any) -> None:
    ids = [np.arange(5000), np.arange(5000), np.arange(5000)]
    ids[2][2500] = 7
    prints = [rows_of(hold([{"prompt_ids": array, "row": 1}])).fingerprint for array in ids]
    assert prints[0] == prints[1] != prints[2]
    assert rows_of(hold(ROWS)).fingerprint != rows_of(hold(ROWS[::-1])).fingerprint


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/rows.jsonl", "rows.jsonl", "a/b/c", "~/nowhere.parquet"])
def test_a_missing_file_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"no file or folder {name}"):
        load_rows(DataSettings(dataset_name=name))


def test_a_file_or_folder_without_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds no file of rows \(\.jsonl"):
        load_rows(DataSettings(dataset_name=str(tmp_path)))
    with pytest.raises(DataError, match=r"notes\.txt is no file of rows"):
        load_rows(DataSettings(dataset_name=str(tmp_path / "notes.txt")))
    with pytest.raises(ConfigError, match="--dataset_name is missing"):
        load_rows(DataSettings())


def test_a_damaged_saved_folder_is_named(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    with pytest.raises(DataError, match="saved is no whole folder saved by datasets"):
        load_rows(DataSettings(dataset_name=str(tmp_path / "saved")))


def test_a_hub_out_of_reach_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "_answers", lambda name: False)
    with pytest.raises(
        HubError, match=r"can't be reached to fetch acme/pairs; give a local file .*--dataset_name"
    ) as error:
        load_rows(DataSettings(dataset_name="acme/pairs"))
    assert "\n" not in str(error.value)


def test_modelscope_without_its_package_names_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install burnish\[modelscope\]"):
        load_rows(DataSettings(dataset_name="acme/pairs", hub="modelscope"))


def test_what_a_hub_gives_has_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": Dataset.from_list(ROWS[:2]), "test": Dataset.from_list(ROWS[2:])}
    monkeypatch.setattr(hubs, "_from_huggingface", lambda name, config: splits)
    settings = DataSettings(dataset_name="acme/pairs")
    source = load_rows(settings)
    assert _prompts(source) == ["p0", "p1"]
    assert str(next(iter(source))[1]) == "acme/pairs[train], row 1"
    assert _prompts(find_eval_rows(settings)) == ["p2", "p3", "p4"]


def test_what_a_hub_refuses_is_no_network_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, config: str | None) -> None:
        raise ValueError("Config name is missing.\nmore")

    monkeypatch.setattr(hubs, "_from_huggingface", refuse)
    with pytest.raises(DataError, match=r"does not give acme/pairs: Config name is missing\.$"):
        load_rows(DataSettings(dataset_name="acme/pairs"))


def test_rows_can_be_read_twice(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(_lines(pair(), pair("b")))
    source = load_rows(DataSettings(dataset_name=str(tmp_path / "rows.jsonl")))
    assert list(source) == list(source)
    assert source.num_rows == 2
