"""Time optimizer steps of TRL's DPOTrainer; run by compare.py with the Python of TRL's own environment.

Imports nothing of burnish. Activation checkpointing is off and rows are taken in their order, as on the other side;
everything else is TRL's default. Writes one JSON file: seconds of each step, what was logged, peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the steps and write the file."""
    options = read_options()
    import torch

    torch.set_num_threads(options.threads)
    steps = train(options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    options.out.write_text(json.dumps({"steps": steps, "peak_rss_bytes": peak, "versions": versions()}))


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines, as many as the steps take")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--micro_batch", type=int, required=True)
    parser.add_argument("--accumulation", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def train(options: argparse.Namespace) -> list[dict[str, float]]:
    """Run the steps; each one's seconds and logged values."""
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    class Clock(TrainerCallback):
        """Seconds from the first micro-batch of a step to the end of its update."""

        def __init__(self) -> None:
            self.began = 0.0
            self.seconds: list[float] = []

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=options.micro_batch,
            gradient_accumulation_steps=options.accumulation,
            max_steps=options.steps,
            learning_rate=options.learning_rate,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        clock = Clock()
        rows = load_dataset("json", data_files=str(options.data), split="train", cache_dir=folder)
        trainer = DPOTrainer(model=str(options.model), args=config, train_dataset=rows, callbacks=[clock])
        trainer.train()
        logged = [record for record in trainer.state.log_history if "grad_norm" in record]
    return [record | {"seconds": seconds} for record, seconds in zip(logged, clock.seconds, strict=True)]


def versions() -> dict[str, str]:
    """What was measured."""
    from importlib.metadata import version

    return {"python": sys.version.split()[0]} | {name: version(name) for name in ("trl", "transformers", "torch")}


if __name__ == "__main__":
    main()
