"""Measure what recomputed activations and compiled layers cost and save, against a plain training step.

    python benchmarks/layer_options.py --model MODEL
    python benchmarks/layer_options.py --model MODEL --option recomputed --groups 16

Generated pairs of gsm8k's lengths, full fine-tuning in float32. Each option is a process of its own with three steps
over the same pairs: the first computes the reference (and compiles), the others find it in the cache. Compiled layers
are not an option of burnish: they are made here, so that what they would gain is known.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from clock import Clock
from step_curves import Point, rows, settings

PAIRS = Point("length", 0, prompt=89, completion=127)
"""The mean lengths of gsm8k's pairs, in words; a word is about a token."""
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recomputed": {"gradient_checkpointing": True},
    "unfused": {"fused_layers": False},
    "compiled": {"fused_layers": False},
}
"""Settings of each option. Compiled layers cannot be fused ones too: torch's compiler refuses oneDNN's operator."""


class Compile(TrainerCallback):
    """Compiles each decoder layer before the first step."""

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        """Have torch compile the layers at their first call."""
        from burnish.scoring.architecture import layers_of

        for layer in layers_of(model):
            layer.compile()


def main() -> None:
    """Measure the options and print a line of each."""
    options = read_options()
    if options.measure is not None:
        print(json.dumps(measure(options, options.measure)))
        return
    for name in options.option or OPTIONS:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout.splitlines()[-1])
        steps = ", ".join(f"{seconds:.2f}" for seconds in result["seconds"])
        print(f"{name}: {steps} s a step; peak memory {result['peak_bytes'] / 2**30:.2f} GiB", flush=True)


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--option", nargs="+", choices=list(OPTIONS), help="only these")
    parser.add_argument("--groups", type=int, default=6, help="pairs of a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--measure", choices=list(OPTIONS), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Train three steps with one option: the seconds of each, and the process's peak memory in bytes."""
    from burnish import DPOConfig, DPOTrainer

    with tempfile.TemporaryDirectory() as folder:
        os.environ["BURNISH_CACHE"] = str(Path(folder) / "cache")
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows(PAIRS, options.groups)), encoding="utf-8")
        clock = Clock(time.time())
        callbacks = [clock, Compile()] if name == "compiled" else [clock]
        chosen: dict[str, Any] = settings(options, PAIRS, options.groups, folder) | {"max_steps": 3} | OPTIONS[name]
        trainer = DPOTrainer(args=DPOConfig(**chosen), callbacks=callbacks)
        try:
            trainer.train()
        finally:
            trainer.close()
        result = clock.result(trainer.state.log_history, ())
    return {
        "seconds": [step["seconds"] for step in result["steps"]],
        "losses": [step["loss"] for step in result["steps"]],
        "peak_bytes": result["peak_rss_bytes"],
    }


if __name__ == "__main__":
    main()
