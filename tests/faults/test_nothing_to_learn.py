"""A run that can change nothing says so at its start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from burnish.data.groups import PromptGroup
from burnish.data.store import GroupStore
from burnish.errors import ConfigError, DataError
from burnish.methods.learnable import check_learnable
from faults.harness import Job, tensors


def rows(path: Path, **more: Any) -> Path:
    say = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    row = {"prompt": [{"role": "user", "content": "a?"}], "chosen": say("b"), "rejected": say("c"), **more}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    return path


def refused(tiny: Job, data: Path, *words: Any) -> str:
    ended = tiny.run("run", "--dataset_name", data, *words, expect=2)
    assert not tiny.path("run").exists()
    return ended.err.splitlines()[-1]


def test_pairs_that_are_all_equal_are_refused(tiny: Job, tmp_path: Path) -> None:
    same = [{"role": "assistant", "content": "b"}]
    message = refused(tiny, rows(tmp_path / "rows.jsonl", chosen=same, rejected=same))
    assert "no row is left to train on" in message
    assert "identical" in message


def test_rows_of_weight_0_are_refused(tiny: Job, tmp_path: Path) -> None:
    assert "all 8 rows have weight 0" in refused(tiny, rows(tmp_path / "rows.jsonl", weight=0.0))


def test_rows_without_a_counted_token_are_refused() -> None:
    ids, nothing = np.array([3, 4], dtype=np.int32), np.zeros(2, dtype=np.bool_)
    group = PromptGroup(prompt_ids=ids, completion_ids=(ids, ids), completion_mask=(nothing, nothing))
    with pytest.raises(DataError, match="no token of the 1 rows is counted"):
        check_learnable(None, nn.Linear(2, 2), GroupStore.from_groups([group]))


def test_a_learning_rate_of_0_warns_and_changes_nothing(tiny: Job, tmp_path: Path) -> None:
    words = ("--dataset_name", rows(tmp_path / "rows.jsonl"), "--learning_rate", 0, "--max_steps", 2, "--save_steps", 1)
    ended = tiny.run("run", *words)
    assert "the learning rate is 0" in ended.err
    one, two = tensors(tiny.path("run"), 1), tensors(tiny.path("run"), 2)
    assert all(one[name].equal(two[name]) for name in one if name.startswith("model "))


def test_a_frozen_model_is_refused(fault_inputs: Path) -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter of the model is trained"):
        check_learnable(None, frozen, GroupStore.from_groups([]))
