"""Every command that trains goes on from a checkpoint bit for bit, running statistics of its loss included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

TIMES = ("_runtime", "_per_second", "_seconds")
STAGES: dict[str, tuple[str, list[Any]]] = {
    "bco_pair": ("dpo", ["--loss_type", "bco_pair"]),
    "a beta that follows margins": ("dpo", ["--beta_dpo_alpha", 0.6]),
    "a beta on a schedule": ("dpo", ["--beta_final", 0.5]),
    "kto": ("kto", []),
    "bco": ("kto", ["--loss_type", "bco"]),
    "sft": ("sft", ["--packing", "--neftune_noise_alpha", 5]),
    "reward": ("reward", []),
}


def _rows(command: str, path: Path) -> Path:
    if command in ("dpo", "reward"):
        return write_pairs(path)
    return write_completions(path, labelled=command == "kto")


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_equals_the_uninterrupted_one_whatever_it_learns(stage: str, tmp_path: Path) -> None:
    """Stopped after step 4 of 9: in the second epoch, and in the middle of a logging interval."""
    command, flags = STAGES[stage]
    data, whole, cut = _rows(command, tmp_path / "rows.jsonl"), tmp_path / "whole", tmp_path / "cut"
    more = ["--num_train_epochs", 3, "--logging_steps", 3, "--save_strategy", "steps", "--save_steps", 4]
    words = [*more, "--reference_cache", "memory"] if command in ("dpo", "kto") else more
    run_burnish(*stage_job(command, data, whole, *words, *flags))
    run_burnish(*stage_job(command, data, cut, *words, *flags))
    for step in (8, 9):
        (cut / "checkpoints" / f"step-{step}" / "MANIFEST.json").unlink()
    run_burnish(*stage_job(command, data, cut, *words, *flags, "--resume_from_checkpoint", "auto"))
    assert _without_times(read_metrics(whole)) == _without_times(read_metrics(cut))
    names = [path.name for path in (whole / "model").glob("*.safetensors")]
    assert names
    assert [name for name in names if _bytes(whole, name) != _bytes(cut, name)] == []


def _bytes(run: Path, name: str) -> bytes:
    return (run / "model" / name).read_bytes()


def _without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in records]
