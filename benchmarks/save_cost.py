"""Measure what checkpoints cost a full fine-tuning of SmolLM2-135M, hashing and reading back included.

    python benchmarks/save_cost.py                       # both ways of saving, a table
    python benchmarks/save_cost.py --mode async
    python benchmarks/save_cost.py --document docs/reliability.md

Each way is a DPO run of its own over the same 16 pairs, with a checkpoint (weights and both moments in float32) after
every step. The first step scores the reference and warms up, and is not counted; the later ones find the reference in
its cache, which makes them short and the saves' share large. A run that saves every 50 steps then spends

    seconds of a save / (50 · seconds of a step + seconds of a save)

on them. The seconds of a save are those that training waits. With --async_save the file is written while the next step
runs, so what that step takes longer than one beside no writing is added to the wait.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from bench_models import fetch_smollm2
from bench_rows import GSM8K, cut_rows
from pages import write_between

MARKERS = ("<!-- save cost -->", "<!-- /save cost -->")
STEPS_A_SAVE = 50
MODES = ("sync", "async")


class SaveClock(TrainerCallback):
    """Seconds of each step, and from its end until the run has saved and goes on."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.saves: list[float] = []
        self.mark = 0.0

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Begin a step."""
        self.mark = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """End a step, and begin what comes between steps."""
        now = time.perf_counter()
        self.steps.append(now - self.mark)
        self.mark = now

    def on_save(self, *_: object, **__: object) -> None:
        """End the save."""
        self.saves.append(time.perf_counter() - self.mark)


def main() -> int:
    """Measure, print and keep the figures."""
    options = read_options()
    if options.measure:
        print(json.dumps(measure(options)))
        return 0
    found = {}
    for mode in MODES:
        if options.mode in (None, mode):
            command = [sys.executable, __file__, *sys.argv[1:], "--measure", mode]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[mode] = json.loads(done.stdout.splitlines()[-1])
            print(f"{mode}: {found[mode]}", file=sys.stderr, flush=True)
    text = table(found, options)
    print(text)
    if options.document is not None:
        write_between(options.document, MARKERS, text)
        report = json.dumps(found, indent=1) + "\n"
        options.document.with_name("save_cost.json").write_text(report, encoding="utf-8")
    return 0


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, help="only this way of saving")
    parser.add_argument("--model", type=Path, help="model folder (default SmolLM2-135M, fetched where it is absent)")
    parser.add_argument("--rows", type=Path, default=GSM8K, help="preference rows (default ../shared/data/gsm8k)")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of a step")
    parser.add_argument("--steps", type=int, default=4, help="steps, the first of which is not counted; at least 3")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--document", type=Path, help="page that gets the table between its markers")
    parser.add_argument("--measure", choices=MODES, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train with a save after every step; seconds of each."""
    from burnish import DPOConfig, DPOTrainer

    model = options.model or fetch_smollm2()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BURNISH_CACHE"] = str(Path(folder) / "cache")
        rows = cut_rows(options.rows, Path(folder) / "rows.jsonl", first=0, count=options.pairs)
        clock = SaveClock()
        settings = DPOConfig(
            model_name_or_path=str(model), dataset_name=str(rows), output_dir=str(Path(folder) / "run"),
            global_batch_size=options.pairs, max_steps=options.steps, save_steps=1, save_total_limit=1,
            async_save=options.measure == "async", num_threads=options.threads, logging_steps=1, num_samples=0,
            device="cpu", precision="fp32", disable_tqdm=True, eval_strategy="no",
        )  # fmt: skip
        trainer = DPOTrainer(args=settings, callbacks=[clock])
        try:
            trainer.train()
        finally:
            trainer.close()
        files = [path for path in (Path(folder) / "run" / "checkpoints").rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    return {"step_seconds": clock.steps, "save_seconds": clock.saves, "checkpoint_bytes": size}


def cost(found: dict[str, Any], mode: str) -> dict[str, float]:
    """Median seconds of a step and of a save, and the saves' share of a run that saves every 50 steps.

    The first step is left out; so is the first save of an asynchronous run, which has none before it to wait for.
    """
    record = found[mode]
    step, save = statistics.median(record["step_seconds"][1:]), statistics.median(record["save_seconds"][1:])
    if mode == "async":
        alone = statistics.median(found["sync"]["step_seconds"][1:]) if "sync" in found else step
        save += max(0.0, step - alone)
        step = alone
    return {"step": step, "save": save, "share": save / (STEPS_A_SAVE * step + save)}


def table(found: dict[str, Any], options: argparse.Namespace) -> str:
    """The figures as a page's table, with what they were measured on."""
    lines = [
        "| saving | seconds of a step | seconds that a save costs | share of a run that saves every 50 steps |",
        "|---|---|---|---|",
    ]
    for mode in found:
        one = cost(found, mode)
        flag = " (`--async_save`)" if mode == "async" else ""
        lines.append(f"| {mode}{flag} | {one['step']:.1f} | {one['save']:.2f} | {100 * one['share']:.2f} % |")
    size = next(iter(found.values()))["checkpoint_bytes"]
    about = (
        f"{size / 1e9:.2f} GB a checkpoint; steps of {options.pairs} pairs; medians of {options.steps - 1} steps and "
        f"saves; {platform.machine()}, {options.threads} threads."
    )
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    sys.exit(main())
