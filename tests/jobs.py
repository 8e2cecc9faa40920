"""Small jobs for tests of whole runs: rows of token ids, and flags that suit a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden" / "qwen2"
POLICY = GOLDEN / "policy"


def write_pairs(path: Path, *, seed: int = 0, count: int = 24, **columns: Any) -> Path:
    """Preference rows of random ids with uneven lengths, as JSON Lines."""
    generator = np.random.default_rng(seed)
    ids = lambda low, high: generator.integers(3, 500, int(generator.integers(low, high))).tolist()  # noqa: E731
    rows = [
        {"prompt_ids": ids(2, 20), "chosen_ids": ids(2, 16), "rejected_ids": ids(2, 16), **columns}
        for _ in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_completions(path: Path, *, seed: int = 0, count: int = 24, labelled: bool = False) -> Path:
    """Rows of one completion of random ids with uneven lengths, as JSON Lines; labels alternate."""
    generator = np.random.default_rng(seed)
    ids = lambda low, high: generator.integers(3, 500, int(generator.integers(low, high))).tolist()  # noqa: E731
    rows = [
        {"prompt_ids": ids(2, 20), "completion_ids": ids(2, 16)} | ({"label": n % 2 == 0} if labelled else {})
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def job(data: Path, output: Path, *words: Any) -> list[Any]:
    """The words of a short `burnish dpo` run; later words win."""
    return stage_job("dpo", data, output, "--reference_cache", "memory", *words)


def stage_job(command: str, data: Path, output: Path, *words: Any) -> list[Any]:
    """The words of a short run of any command that trains; later words win."""
    return [
        command,
        *("--model_name_or_path", POLICY, "--dataset_name", data, "--output_dir", output),
        *("--global_batch_size", 8, "--learning_rate", 1e-3, "--logging_steps", 1, "--num_samples", 0),
        *("--save_strategy", "no", "--num_threads", 1),
        *words,
    ]


def model_tensors(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's final model."""
    return load_file(run / "model" / "model.safetensors")


def movement_ratio(run: Path, other: Path) -> float:
    """How far two final models are apart, as a share of how far they moved from the start."""
    start, one, two = load_file(POLICY / "model.safetensors"), model_tensors(run), model_tensors(other)
    apart = sum((one[name] - two[name]).square().sum() for name in one)
    moved = sum((one[name] - start[name]).square().sum() for name in one)
    return float((apart / moved) ** 0.5)
