"""Compare TRL's DPO steps with burnish's: same model, same pairs in the same order, same machine, taking turns.

    python -m venv trl-env && trl-env/bin/pip install trl==1.16.0
    .venv/bin/python benchmarks/compare.py --trl_python trl-env/bin/python --model SmolLM2 --data pairs-train.jsonl

Each turn is a process of its own (TRL, burnish, TRL, burnish, …), so that neither profits from a warm start and a
machine that slows down slows both. Float32, two threads, 16 pairs a step; TRL takes them as 8 micro-batches of 2 with
activation checkpointing off, its fastest way on a CPU. Loading and tokenising are not counted, reference scoring is.
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
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMNS = ("loss", "grad_norm", "logps/chosen", "logps/rejected")


def main() -> int:
    """Take turns, print the comparison."""
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        data = first_rows(options, Path(folder))
        turns: dict[str, list[dict[str, Any]]] = {"TRL": [], "burnish": []}
        for turn in range(options.rounds):
            for name, python, script in (
                ("TRL", options.trl_python, "trl_step.py"),
                ("burnish", sys.executable, "burnish_step.py"),
            ):
                result = run(options, python=python, script=script, data=data, out=Path(folder) / "result.json")
                turns[name].append(result)
                seconds = seconds_per_pair(result, options)
                print(f"round {turn + 1} {name}: {seconds:.3f} s a pair", file=sys.stderr, flush=True)
    report = summarise(turns, options)
    print(render(report))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl_python", required=True, help="Python of an environment with TRL")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--data", type=Path, required=True, help="preference rows, JSON lines; the first ones are used")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps a turn; ≥ 1 (default 4)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each; ≥ 1 (default 2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro_batch", type=int, default=2, help="pairs of a TRL micro-batch (default 2)")
    parser.add_argument("--accumulation", type=int, default=8, help="TRL micro-batches of a step (default 8)")
    parser.add_argument("--learning_rate", type=float, default=5e-7)
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    return parser.parse_args()


def pairs_a_step(options: argparse.Namespace) -> int:
    """Pairs of an optimizer step, on either side."""
    return options.micro_batch * options.accumulation


def first_rows(options: argparse.Namespace, folder: Path) -> Path:
    """A file of exactly the rows that the steps take, so that both sides read the same."""
    wanted = options.steps * pairs_a_step(options)
    with options.data.open(encoding="utf-8") as source:
        rows = list(islice(source, wanted))
    if len(rows) < wanted:
        sys.exit(f"{options.data} has {len(rows)} rows; {options.steps} steps take {wanted}: lower --steps")
    path = folder / "rows.jsonl"
    path.write_text("".join(rows), encoding="utf-8")
    return path


def run(options: argparse.Namespace, *, python: str, script: str, data: Path, out: Path) -> dict[str, Any]:
    """One turn in a process of its own."""
    words = [str(python), str(HERE / script), "--model", str(options.model.absolute()), "--data", str(data)]
    words += ["--out", str(out)]
    for name in ("steps", "threads", "micro_batch", "accumulation", "learning_rate"):
        words += [f"--{name}", str(getattr(options, name))]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: PLW1510
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr[-3000:]}")
    return json.loads(out.read_text())


def seconds_per_pair(result: dict[str, Any], options: argparse.Namespace) -> float:
    """Seconds of a turn's optimizer steps over the pairs that they took."""
    total = result.get("train_step_seconds") or sum(step["seconds"] for step in result["steps"])
    return total / (options.steps * pairs_a_step(options))


def summarise(turns: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over the turns, and what each side's first turn logged."""
    sides = {
        name: {
            "seconds_per_pair": statistics.median(seconds_per_pair(result, options) for result in results),
            "all_seconds_per_pair": [seconds_per_pair(result, options) for result in results],
            "peak_rss_bytes": statistics.median(result["peak_rss_bytes"] for result in results),
            "versions": results[0]["versions"],
            "steps": [{key: step[key] for key in COLUMNS} for step in results[0]["steps"]],
        }
        for name, results in turns.items()
    }
    trl, ours = sides["TRL"], sides["burnish"]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {options.threads} threads, float32",
        "step": f"{pairs_a_step(options)} pairs, {options.steps} steps, {options.rounds} turns of each",
        "time_ratio": trl["seconds_per_pair"] / ours["seconds_per_pair"],
        "memory_ratio": ours["peak_rss_bytes"] / trl["peak_rss_bytes"],
        **sides,
    }


def render(report: dict[str, Any]) -> str:
    """The report as text: both sides' figures, then what they logged, step by step."""
    lines = [f"machine: {report['machine']}", f"work: {report['step']}", ""]
    for name in ("TRL", "burnish"):
        side = report[name]
        turns = ", ".join(f"{seconds:.3f}" for seconds in side["all_seconds_per_pair"])
        memory = side["peak_rss_bytes"] / 2**30
        versions = ", ".join(f"{package} {version}" for package, version in side["versions"].items())
        lines.append(f"{name:8} {side['seconds_per_pair']:.3f} s a pair ({turns}), peak {memory:.2f} GiB; {versions}")
    time, memory = report["time_ratio"], report["memory_ratio"]
    lines.append(f"TRL's time over burnish's: {time:.2f}; burnish's peak over TRL's: {memory:.2f}")
    lines += ["", f"{'step':4} {'':8}" + "".join(f" {column:>16}" for column in COLUMNS)]
    for number, (trl, ours) in enumerate(zip(report["TRL"]["steps"], report["burnish"]["steps"], strict=True), start=1):
        for name, step in (("TRL", trl), ("burnish", ours)):
            lines.append(f"{number:4} {name:8}" + "".join(f" {step[column]:16.6f}" for column in COLUMNS))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
