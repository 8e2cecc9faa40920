"""Measure what a training step costs as its work grows: prompt share, completions a prompt, and length.

    python benchmarks/step_curves.py --model MODEL                                    # a table of each curve
    python benchmarks/step_curves.py --model MODEL --curve length                     # one curve
    python benchmarks/step_curves.py --model MODEL --plot docs/step_curves.png --out docs/step_curves.json

Generated rows of common words, full fine-tuning in float32. Each point is two optimizer steps over the same groups:
the first computes the reference, the second finds it in the cache. Each point is measured in a process of its own,
after the same two steps once to warm up. A plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "was",
    "for",
    "on",
    "are",
    "with",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "had",
    "by",
    "not",
    "but",
    "what",
]


@dataclass(frozen=True, slots=True)
class Point:
    """The shape of the groups of one measurement, in words; a word is about a token."""

    curve: str
    x: float
    prompt: int
    completion: int
    completions: int = 2

    @property
    def tokens(self) -> int:
        """Distinct tokens of a group, its prompt once."""
        return self.prompt + self.completion * self.completions


AXES = {"share": "prompt share of a sequence", "completions": "completions a prompt", "length": "tokens of a sequence"}
"""What the horizontal axis of each curve counts."""

POINTS = (
    *(Point("share", share, round(512 * share), 512 - round(512 * share)) for share in (0.05, 0.3, 0.6, 0.9)),
    *(Point("completions", count, 256, 64, count) for count in (2, 4, 8)),
    *(Point("length", length, length // 2, length // 2) for length in (128, 256, 512, 1024, 2048)),
)


def main() -> None:
    """Measure every point, print it, and keep all where asked."""
    options = read_options()
    if options.measure is not None:
        measure(options, POINTS[options.measure])  # the first steps of a process are slower: not counted
        print(json.dumps(measure(options, POINTS[options.measure])))
        return
    points = []
    for place, point in enumerate(POINTS):
        if options.curve not in (None, point.curve):
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(place)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        points.append(asdict(point) | json.loads(done.stdout.splitlines()[-1]))
        print(in_words(points[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        plot(points, options.plot)


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--curve", choices=list(AXES), help="only this curve")
    parser.add_argument("--step_tokens", type=int, default=2048, help="distinct tokens of a step, at least one group")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all")
    parser.add_argument("--plot", type=Path, help="write a PNG")
    parser.add_argument("--out", type=Path, help="write the points as JSON")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace, point: Point) -> dict[str, Any]:
    """Train two steps on groups of one shape and return the seconds a group, first and with a cached reference."""
    from burnish import DPOConfig, DPOTrainer
    from clock import Clock

    groups = max(1, options.step_tokens // point.tokens)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BURNISH_CACHE"] = str(Path(folder) / "cache")
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows(point, groups)), encoding="utf-8")
        clock = Clock(time.time())
        trainer = DPOTrainer(args=DPOConfig(**settings(options, point, groups, folder)), callbacks=[clock])
        try:
            trainer.train()
        finally:
            trainer.close()
        result = clock.result(trainer.state.log_history, ())
    first, later = (step["seconds"] / groups for step in result["steps"])
    sequences, computed = (result["steps"][0][name] / groups for name in ("num_tokens", "num_computed_tokens"))
    return {
        "groups": groups,
        "seconds": first,
        "cached_seconds": later,
        "sequence_tokens": sequences,
        "computed_tokens": computed,
    }


def settings(options: argparse.Namespace, point: Point, groups: int, folder: str) -> dict[str, Any]:
    """Return the settings of a run of two steps over the same groups."""
    return {
        "model_name_or_path": str(options.model),
        "dataset_name": str(Path(folder) / "rows.jsonl"),
        "output_dir": str(Path(folder) / "run"),
        "loss_type": "sigmoid" if point.completions == 2 else "plackett_luce",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": groups,
        "max_steps": 2,
        "max_length": 8192,
        "train_sampling_strategy": "sequential",
        "num_threads": options.threads,
        "device": "cpu",
        "precision": "fp32",
        "logging_steps": 1,
        "save_strategy": "no",
        "num_samples": 0,
        "disable_tqdm": True,
    }


def rows(point: Point, groups: int) -> list[dict[str, Any]]:
    """Return rows of one shape, the same each time."""
    source = random.Random(0)

    def turn(role: str, words: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(source.choices(WORDS, k=max(1, words)))}]

    made = []
    for _ in range(groups):
        prompt = turn("user", point.prompt)
        completions = [turn("assistant", point.completion) for _ in range(point.completions)]
        if point.completions == 2:
            made.append({"prompt": prompt, "chosen": completions[0], "rejected": completions[1]})
        else:
            made.append(
                {"prompt": prompt, "completions": completions, "ranking": list(range(1, point.completions + 1))}
            )
    return made


def in_words(point: dict[str, Any]) -> str:
    """Return a point as a line."""
    shape = (
        f"{point['sequence_tokens']:,.0f} tokens in {point['completions']} sequences, {point['computed_tokens']:,.0f}"
    )
    seconds = f"{point['seconds']:.2f} s a prompt, {point['cached_seconds']:.2f} s with the reference cached"
    return f"{AXES[point['curve']]} {point['x']:g}: {shape} computed; {seconds}"


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Draw the seconds of a group against each axis."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    names = [name for name in AXES if any(point["curve"] == name for point in points)]
    figure = Figure(figsize=(4 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        shown = [point for point in points if point["curve"] == name]
        places = [point["x"] for point in shown]
        for key, label in (("seconds", "first epoch"), ("cached_seconds", "reference cached")):
            axes.plot(places, [point[key] for point in shown], marker="o", label=label)
        axes.set(xlabel=AXES[name], ylabel="seconds a prompt", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
