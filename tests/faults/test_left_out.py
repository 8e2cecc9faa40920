"""What a step leaves out has no mean: records lack its metrics, instead of saying 0 or NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.device.ranks import Ranks
from burnish.engine.metrics import MetricSums
from faults.harness import Job, records

NAN = {"name": "scale_loss", "factor": "nan"}


def kto_words(tiny: Job, labels: list[bool], *more: Any) -> list[Any]:
    """Labelled completions, four a step in the order of the file, one record a step."""
    data = tiny.folder / "labelled.jsonl"
    rows = [{"prompt": f"say {row}", "completion": "abc"[: 1 + row % 3], "label": x} for row, x in enumerate(labels)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["kto", *tiny.words("run")[1:], "--dataset_name", data, "--num_train_epochs", 1, "--logging_steps", 1]
    return [*words, "--train_sampling_strategy", "sequential", *more]


def train_records(run: Path) -> list[dict[str, Any]]:
    return [record for record in records(run) if record["kind"] == "train"]


def test_a_mean_of_nothing_is_left_out_and_a_sum_of_nothing_stays() -> None:
    zero, one = torch.tensor(0.0), torch.tensor(1.0)
    sums = MetricSums()
    sums.add({"seen": (zero, one), "unseen": (zero, zero), "health/pairs": (zero, zero)})
    assert sums.take_means(Ranks()) == {"seen": 0.0, "health/pairs": 0.0}


def test_steps_of_one_label_have_no_rewards_of_the_other_and_no_margin(tiny: Job) -> None:
    tiny.server.run(kto_words(tiny, [True] * 4 + [False] * 4 + [True, False] * 2))
    good, bad, both = train_records(tiny.path("run"))
    of_chosen, of_rejected = ({name for name in both if name.endswith(end)} for end in ("/chosen", "/rejected"))
    assert len(of_chosen) == len(of_rejected) > 1
    assert set(both) - set(good) == {"rewards/margins", *of_rejected}
    assert set(both) - set(bad) == {"rewards/margins", *of_chosen}


@pytest.mark.parametrize("command", ["dpo", "kto"])
def test_an_interval_of_skipped_steps_alone_says_its_loss_and_no_means(command: str, tiny: Job) -> None:
    words = tiny.words("run", "--logging_steps", 1) if command == "dpo" else kto_words(tiny, [True, False] * 6)
    tiny.server.run([*words, "--max_steps", 3], {**NAN, "first": 2, "last": 2})
    before, skipped, after = train_records(tiny.path("run"))
    assert skipped["loss"] == "NaN"
    left_out = set(before) - set(skipped)
    assert {"rewards/chosen", "rewards/margins", "logps/chosen"} <= left_out
    assert left_out <= set(after)
    assert set(skipped) - set(before) == {"skipped_steps"}


def test_a_run_of_skipped_steps_alone_has_no_mean_loss(tiny: Job) -> None:
    tiny.run("run", "--max_steps", 2, faults=({**NAN, "first": 1, "last": 9},))
    summary = records(tiny.path("run"))[-1]
    assert summary["kind"] == "summary"
    assert summary["skipped_steps"] == 2
    assert "train_loss" not in summary
