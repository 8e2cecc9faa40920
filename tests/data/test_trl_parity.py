"""Prompt, chosen and rejected ids equal those that TRL 1.16 makes (tools/make_trl_ids.py wrote them)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from burnish.data.prepare import Prepared, prepare_groups
from burnish.data.settings import DataSettings
from burnish.data.sources import load_rows, rows_of

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_ids"
SMALL = json.loads((GOLDEN / "small.json").read_text("utf-8"))
CASES = [
    (style, kind, number)
    for style, kinds in SMALL.items()
    for kind, rows in kinds.items()
    for number in range(len(rows))
]


@pytest.mark.parametrize(("style", "kind", "number"), CASES)
def test_ids_of_a_row_equal_those_of_trl(style: str, kind: str, number: int, request: Any, tmp_path: Path) -> None:
    case = SMALL[style][kind][number]
    tokenizer = request.getfixturevalue(style)
    # Among good rows, so that the share of odd prompts stays under the bound.
    rows = [SMALL[style]["conversations"][0]["row"]] * 30 + [case["row"]]
    prepared = prepare_groups(rows_of(rows), tokenizer, DataSettings(), cache_dir=tmp_path)
    group = prepared.groups[-1]
    assert group.prompt_ids.tolist() == case["prompt_ids"]
    assert [ids.tolist() for ids in group.completion_ids] == [case["chosen_ids"], case["rejected_ids"]]


def _golden_rows(name: str) -> Iterator[list[list[int]]]:
    stored = np.load(GOLDEN / "smollm2.npz")
    ids, at = stored[f"{name}_ids"], 0
    for lengths in stored[f"{name}_lengths"]:
        row = []
        for length in map(int, lengths):
            row.append(ids[at : at + length].tolist())
            at += length
        yield row


def _prepare_real(path: Path, model: Path, cache: Path, **settings: Any) -> Prepared:
    chosen = DataSettings(dataset_name=str(path), max_train_samples=200, **settings)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    return prepare_groups(load_rows(chosen), tokenizer, chosen, cache_dir=cache)


@pytest.mark.slow  # fetches the real tokenizer once, with its model: 40 s; then 5 s
@pytest.mark.parametrize(
    ("name", "file"), [("gsm8k", "gsm8k/pairs-train.jsonl"), ("chinese", "llamafactory/dpo_zh_demo.json")]
)
def test_ids_of_real_rows_equal_those_of_trl(
    name: str, file: str, smollm2: Path, shared_dir: Path, tmp_path: Path
) -> None:
    prepared = _prepare_real(shared_dir / "data" / file, smollm2, tmp_path, max_length=None)
    expected = list(_golden_rows(name))
    assert prepared.report.rows_read == prepared.report.groups_used == len(expected) == 200
    for group, (prompt, chosen, rejected) in zip(prepared.groups, expected, strict=True):
        assert group.prompt_ids.tolist() == prompt
        assert [ids.tolist() for ids in group.completion_ids] == [chosen, rejected]
        assert all(mask.all() for mask in group.completion_mask)


@pytest.mark.slow  # as above
def test_keep_start_keeps_the_tokens_that_trl_keeps(smollm2: Path, shared_dir: Path, tmp_path: Path) -> None:
    prepared = _prepare_real(shared_dir / "data/llamafactory/dpo_zh_demo.json", smollm2, tmp_path, max_length=512)
    kept = [row for row in _golden_rows("chinese") if len(row[0]) < 512]
    assert prepared.report.counts["overlong_prompt"] == 200 - len(kept) > 0
    for group, (prompt, chosen, rejected) in zip(prepared.groups, kept, strict=True):
        for ids, completion in zip(group.completion_ids, (chosen, rejected), strict=True):
            assert [*group.prompt_ids.tolist(), *ids.tolist()] == [*prompt, *completion][:512]
