"""Every row is accounted for, the work is done once, and nothing damaged is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnish.data import prepare as prepare_module
from burnish.data.audit import note_shared_prompts
from burnish.data.digests import tokenizer_fingerprint
from burnish.data.examples import Example
from burnish.data.prepare import data_cache_dir
from burnish.data.report import KINDS, DataReport
from burnish.data.settings import DataSettings
from burnish.data.tokenise import ExampleEncoder
from burnish.errors import DataError
from row_builders import pair

Prepare = Callable[..., Any]
ROWS = [pair(f"Question {n}", f"Answer {n}", "No") for n in range(7)]


def test_groups_carry_place_weight_and_margin(prepare: Prepare, write_lines: Any) -> None:
    path = write_lines(pair(weight=2.5, margin=0.5), "", pair("Hi", "Hello", "No"))
    first, second = prepare(path).groups
    assert (first.weight, first.margin, first.source, first.row) == (2.5, 0.5, str(path), 1)
    assert (second.weight, second.margin, second.row) == (1.0, None, 3)


def test_the_report_accounts_for_every_row(prepare: Prepare) -> None:
    rows = [*ROWS, pair(chosen=""), pair(chosen="No", rejected="No"), {"prompt": 1, "chosen": 2, "rejected": 3}]
    prepared = prepare(rows, on_bad_row="skip", max_length=60)
    report = prepared.report
    dropped = sum(number for kind, number in report.counts.items() if KINDS[kind][0] in ("dropped", "rejected"))
    assert report.rows_read == report.groups_used + dropped == 10
    assert report.groups_used == len(prepared.groups) == 7
    assert report.prompt_tokens == prepared.groups.prompt_lengths.sum()
    assert report.prompt_tokens + report.completion_tokens == prepared.groups.tree_lengths.sum()
    assert report.counted_tokens == prepared.groups.num_counted.sum()
    line = report.one_line()
    assert line.startswith(
        "data set: 10 rows read, 7 used; rejected 1 unusable row; dropped 1 empty completion, 1 identical"
    )
    assert "\n" not in line
    stored = json.loads(json.dumps(report.as_dict()))
    assert DataReport.from_dict(stored).as_dict() == report.as_dict()
    assert stored["places"]["bad_row"] == ["data set, row 10"]


def test_groups_are_numbered_among_all_examples_and_gaps_have_a_fingerprint(prepare: Prepare) -> None:
    same, bad = pair(chosen="No", rejected="No"), {"prompt": 1}
    told: list[str] = []
    for rows, numbers in (
        ([*ROWS[:3]], [0, 1, 2]),
        ([ROWS[0], same, *ROWS[1:3], bad], [0, 2, 3]),
        ([ROWS[0], ROWS[1], same, bad, ROWS[2]], [0, 1, 4]),
        ([*ROWS[:3], same], [0, 1, 2]),
    ):
        prepared = prepare(rows, on_bad_row="skip")
        assert prepared.groups.numbers.tolist() == [group.number for group in prepared.groups] == numbers
        assert prepared.report.examples_read == len(rows)
        told.append(prepared.fingerprint)
        assert prepared.groups.fingerprint == told[0]
    assert len(set(told)) == 4


def test_a_pair_taken_as_two_labelled_completions_is_two_examples(prepare: Prepare) -> None:
    rows = [ROWS[0], {"prompt": 1}, pair("Question", "", "No"), ROWS[1]]
    prepared = prepare(rows, kind="unpaired", on_bad_row="skip")
    assert prepared.groups.numbers.tolist() == [0, 1, 4, 5, 6]
    assert prepared.report.examples_read == 7
    assert not prepare(ROWS, kind="unpaired").has_gaps


def test_repetitions_are_counted_and_kept(prepare: Prepare) -> None:
    rows = [pair("a", "x", "y"), pair("b", "x", "y"), pair("a", "x", "y"), pair("b", "y", "x"), pair("a", "x", "y")]
    prepared = prepare(rows)
    assert len(prepared.groups) == 5
    assert prepared.report.counts == {"duplicate_row": 2, "contradictory_pair": 2}
    assert prepared.report.places["duplicate_row"] == ["data set, row 3", "data set, row 5"]
    assert prepared.report.places["contradictory_pair"] == ["data set, row 2", "data set, row 4"]


def test_prompts_shared_with_the_training_rows_are_counted(prepare: Prepare) -> None:
    training, held_out = prepare(ROWS), prepare([*ROWS[:2], pair("new")])
    note_shared_prompts(held_out.report, held_out.groups, training.groups)
    assert held_out.report.counts["shared_prompt"] == 2
    assert "2 prompts that are in the training rows too" in held_out.report.one_line()


def test_an_empty_source_gives_no_groups(prepare: Prepare, write_lines: Any) -> None:
    prepared = prepare(write_lines())
    assert len(prepared.groups) == prepared.report.rows_read == 0


def test_a_second_start_does_no_work(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*ROWS, {"chosen": 1}]
    first = prepare(rows, on_bad_row="skip")
    monkeypatch.setattr(prepare_module, "recognise", None)
    second = prepare(rows, on_bad_row="skip")
    assert (first.report.from_cache, second.report.from_cache) == (False, True)
    assert second.report.as_dict() == first.report.as_dict()
    assert second.groups.fingerprint == first.groups.fingerprint


CHANGES: list[dict[str, Any]] = [
    {"max_length": 50},
    {"truncation_mode": "drop"},
    {"on_bad_row": "skip"},
    {"strict_data": True},
    {"kind": "unpaired"},
]


@pytest.mark.parametrize("change", CHANGES)
def test_settings_that_matter_are_part_of_the_key(change: dict[str, Any], prepare: Prepare) -> None:
    prepare(ROWS)
    assert not prepare(ROWS, **change).report.from_cache


def test_rows_template_and_vocabulary_are_part_of_the_key(prepare: Prepare, chatml: Any, headers: Any) -> None:
    prepare(ROWS)
    assert not prepare(ROWS[:6]).report.from_cache
    assert not prepare(ROWS, headers).report.from_cache
    other = deepcopy(chatml)
    other.chat_template += "\n"
    assert not prepare(ROWS, other).report.from_cache
    assert prepare(ROWS, dataset_num_proc=1).report.from_cache


def test_the_tokenizers_fingerprint_does_not_depend_on_its_last_call(chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.pad_token = tokenizer.eos_token
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == before != tokenizer_fingerprint(chatml)


def test_ids_do_not_depend_on_the_tokenizers_last_call(prepare: Prepare, chatml: Any, tmp_path: Path) -> None:
    tokenizer = deepcopy(chatml)
    expected = prepare(ROWS).groups.fingerprint
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    tokenizer(["a", "b c d"], truncation=True, max_length=3)
    assert prepare(ROWS, tokenizer).groups.fingerprint == expected
    tokenizer(["a", "b c d"], truncation=True, max_length=3)
    long = Example("preference", "test", "a " * 9, ["b", "c"])
    assert ExampleEncoder(tokenizer).encode([long]) == ExampleEncoder(chatml).encode([long])


def test_a_slow_tokenizer_is_refused_by_name(prepare: Prepare) -> None:
    class SlowTokenizer:
        pass

    with pytest.raises(DataError, match="fast tokenizers, and SlowTokenizer is none"):
        prepare(ROWS, SlowTokenizer())


def _damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damage_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_damage_tail, _damage_byte, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("suffix", [".arrow", ".json", ".rejected.jsonl"])
def test_a_damaged_cache_is_prepared_again(damage: Any, suffix: str, prepare: Prepare, tmp_path: Path) -> None:
    rows = [*ROWS, {"chosen": 1}]
    expected = prepare(rows, on_bad_row="skip")
    (path,) = [path for path in (tmp_path / "cache").iterdir() if "".join(path.suffixes) == suffix]
    damage(path)
    again = prepare(rows, on_bad_row="skip")
    # One flipped bit of the manifest may leave it as good as it was.
    assert not again.report.from_cache or (suffix == ".json" and damage is _damage_byte)
    assert again.groups.fingerprint == expected.groups.fingerprint
    assert prepare(rows, on_bad_row="skip").report.from_cache


def test_a_failed_preparation_leaves_no_file(prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        prepare([*ROWS, {"chosen": 1}])
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_named(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"prepared rows can't be kept in .*cache: .*--data_cache_dir"):
        prepare(ROWS)


def test_the_cache_folder_is_the_settings_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_cache_dir(DataSettings(data_cache_dir="here")) == Path("here")
    monkeypatch.setenv("BURNISH_CACHE", "/there")
    assert data_cache_dir(DataSettings()) == Path("/there/data")
    monkeypatch.delenv("BURNISH_CACHE")
    assert data_cache_dir(DataSettings()).parts[-3:] == (".cache", "burnish", "data")


@pytest.mark.slow  # starts two processes that import transformers: 15 s
def test_several_processes_give_what_one_gives(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "ROWS_PER_BATCH", 2)
    expected = prepare(ROWS)
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    spread = prepare(ROWS, dataset_num_proc=2)
    assert not spread.report.from_cache
    assert spread.groups.fingerprint == expected.groups.fingerprint
    assert [group.row for group in spread.groups] == [1, 2, 3, 4, 5, 6, 7]


MEASURE = """
import resource, sys
from pathlib import Path
from transformers import AutoTokenizer
from burnish.data.prepare import prepare_groups
from burnish.data.settings import DataSettings
from burnish.data.tokenise import ExampleEncoder
from burnish.data.sources import load_rows
folder, rows = Path(sys.argv[1]), sys.argv[2]
tokenizer = AutoTokenizer.from_pretrained(sys.argv[3])
settings = DataSettings(dataset_name=rows)
prepared = prepare_groups(load_rows(settings), tokenizer, settings, cache_dir=folder)
print(len(prepared.groups), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow  # prepares 3,000 and 24,000 rows in processes of their own: 30 s
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
def test_memory_stays_flat_as_rows_grow(tmp_path: Path, chatml: Any) -> None:
    peaks: list[int] = []
    random = np.random.default_rng(0)
    for number in (3_000, 24_000):
        path = tmp_path / f"{number}.jsonl"
        with path.open("w") as file:
            for _ in range(number):
                prompt, chosen = (" ".join(map(str, random.integers(0, 999, 60))) for _ in range(2))
                file.write(json.dumps(pair(prompt, chosen)) + "\n")
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "cache"), str(path), chatml.name_or_path]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        used, peak = map(int, done.stdout.split())
        assert used == number
        peaks.append(peak)
    # The larger file's groups alone are 45 MB, its rows as Python objects several times that.
    assert peaks[1] - peaks[0] < 40


WITHOUT_PANDAS = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from burnish.data.prepare import prepare_groups
from burnish.data.settings import DataSettings
from burnish.data.sources import load_rows
tokenizer = AutoTokenizer.from_pretrained(sys.argv[3])
loaded = set(sys.modules)
settings = DataSettings(dataset_name=sys.argv[2])
for _ in range(2):  # prepared, then found
    groups = prepare_groups(load_rows(settings), tokenizer, settings, cache_dir=Path(sys.argv[1])).groups
print(len(groups), groups[0].weight, groups.labels.any(), groups.total_weight, groups.highest_id > 0)
print(sorted({"pandas", "datasets", "torch"} & (set(sys.modules) - loaded)))
"""


@pytest.mark.slow  # starts a process that imports transformers: 6 s
def test_preparing_imports_no_pandas(write_lines: Any, tmp_path: Path, chatml: Any) -> None:
    path = write_lines(pair(weight=2, margin=1), pair("Hi"))
    command = [sys.executable, "-c", WITHOUT_PANDAS, str(tmp_path / "cache"), str(path), chatml.name_or_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["2 2.0 False 3.0 True", "[]"]
