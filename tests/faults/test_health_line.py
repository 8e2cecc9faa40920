"""The health line in whole runs: nothing where all is well, and what was injected where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from faults.harness import Job, records
from jobs import stage_job, write_completions
from runs import read_metrics, run_burnish


def health(run: Path) -> list[dict[str, Any]]:
    return [record for record in records(run) if record["kind"] == "health"]


def test_the_uninterrupted_run_is_well(golden: Path) -> None:
    found = health(golden)
    assert [record["problems"] for record in found] == [[]] * len(found)
    assert [record["pairs"] for record in found] == [64, 64]


def test_a_run_that_makes_chosen_completions_unlikely_says_so(tiny: Job) -> None:
    """hinge with a β this small knows no limit: both completions fall, the rejected one faster."""
    ended = tiny.run("run", "--learning_rate", 2e-2, "--num_train_epochs", 4, "--loss_type", "hinge", "--beta", 0.01)
    assert "health: chosen log-probability fell" in ended.err
    worst = max(record["chosen_logp_fall_per_token"] for record in health(tiny.path("run")))
    assert worst > 0.2


def test_the_thresholds_are_settings(tiny: Job) -> None:
    words = ("--health_length_correlation", 0.001, "--health_chosen_fall", "none")
    ended = tiny.run("run", *words)
    assert "health: rewards follow length (r = " in ended.err
    assert "chosen log-probability" not in ended.err


@pytest.mark.parametrize("flag", ["--health_saturation", "--health_length_correlation"])
def test_thresholds_out_of_range_are_refused(flag: str, tiny: Job) -> None:
    assert f"{flag} 1.5" in tiny.run("run", flag, 1.5, expect=2).err


def test_a_reward_model_that_learns_length_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Longer completions repeat one token and are chosen by length alone."""
    import numpy as np

    generator = np.random.default_rng(0)
    ids = lambda count: [9] * int(count)  # noqa: E731
    rows: list[dict[str, Any]] = []
    for _ in range(96):
        short, more = generator.integers(2, 20), generator.integers(1, 30)
        rows.append({"prompt_ids": [5, 6], "chosen_ids": ids(short + more), "rejected_ids": ids(short)})
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--num_train_epochs", 6, "--learning_rate", 3e-3, "--logging_steps", 12)
    run_burnish(*stage_job("reward", data, tmp_path / "run", *words))
    assert "health: rewards follow length (r = 0." in capsys.readouterr().err
    found = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "health"]
    assert max(record["length_correlation"] for record in found) > 0.7
    assert not [name for record in read_metrics(tmp_path / "run") for name in record if name.startswith("health/")]


def test_methods_without_pairs_have_no_health_line(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl")
    run_burnish(*stage_job("sft", data, tmp_path / "run", "--max_steps", 2))
    assert not [record for record in read_metrics(tmp_path / "run") if record["kind"] == "health"]
