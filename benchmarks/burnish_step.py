"""Time optimizer steps of `burnish dpo`, called as a user calls it; run by compare.py.

The reference's cache is kept in memory, so that no run profits from an earlier one. Writes one JSON file: seconds of
all steps, what was logged, peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the steps and write the file."""
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        records = train(options, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    summary = next(record for record in records if record["kind"] == "summary")
    result = {
        "steps": [record for record in records if record["kind"] == "train"],
        "train_step_seconds": summary["train_step_seconds"],
        "peak_rss_bytes": peak,
        "versions": {"python": sys.version.split()[0]}
        | {name: version(name) for name in ("burnish", "transformers", "torch")},
    }
    options.out.write_text(json.dumps(result))


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--micro_batch", type=int, required=True)
    parser.add_argument("--accumulation", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def train(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run the command in a process of its own; the records of its metrics.jsonl."""
    command = [sys.executable, "-m", "burnish.cli.main", "dpo", *command_words(options, folder)]
    environment = os.environ | {"BURNISH_CACHE": str(folder / "cache")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def command_words(options: argparse.Namespace, folder: Path) -> list[str]:
    """What follows `burnish dpo`."""
    settings = {
        "model_name_or_path": options.model,
        "dataset_name": options.data,
        "output_dir": folder / "run",
        "per_device_train_batch_size": options.micro_batch,
        "gradient_accumulation_steps": options.accumulation,
        "max_steps": options.steps,
        "learning_rate": options.learning_rate,
        "train_sampling_strategy": "sequential",
        "num_threads": options.threads,
        "device": "cpu",
        "precision": "fp32",
        "logging_steps": 1,
        "save_strategy": "no",
        "num_samples": 0,
        "reference_cache": "memory",
    }
    return [f"--{name}={value}" for name, value in settings.items()]


if __name__ == "__main__":
    main()
