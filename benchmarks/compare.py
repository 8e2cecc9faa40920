"""Compare burnish with TRL 1.16: same model, same pairs in the same order, same steps, same machine, taking turns.

    make bench                      # everything; a run that was stopped goes on where it stopped
    make bench BENCH=--quick        # a first look: one round of two pairs
    make bench BENCH="--part fp32-long --rounds 5"

Each turn is a process of its own (TRL, burnish, TRL, burnish, …), so that neither profits from a warm start, and a
machine that slows down slows both. TRL takes its pairs in micro-batches of --micro_batch with activation checkpointing
off, its fastest way on a CPU. Losses, log-probabilities and gradient norms are compared: where they differ, the figure
is marked and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bench_models import fetch_smollm2
from bench_rows import cut_rows, find_rows, many_rows
from matrix_products import ModelShape
from pages import write_between
from parts import FULL, PARTS, QUICK, SIDES, Part, Sizes, make_job
from report import Turns, as_json, compare_part, figures_of, rates_in_words, render
from turns import TurnError, sides, take_turn

ROOT = Path(__file__).parents[1]
MARKERS = ("<!-- benchmark -->", "<!-- /benchmark -->")


def main() -> int:
    """Take all turns, print and keep the comparison; 1 where both sides did not do the same, 2 for a failed turn."""
    options = read_options()
    sizes = read_sizes(options)
    chosen = [part for part in PARTS if not options.part or part.name in options.part]
    bench = Bench(options, sizes)
    try:
        turns = {part.name: bench.take_turns(part) for part in chosen}
    except TurnError as error:
        print(error, file=sys.stderr)
        return 2
    return bench.finish(chosen, turns)


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of two pairs: a look, no figure to quote")
    parser.add_argument("--part", nargs="+", choices=[part.name for part in PARTS], help="only these parts")
    parser.add_argument("--model", type=Path, help="model folder (default SmolLM2-135M, fetched where it is absent)")
    parser.add_argument("--gsm8k", type=Path, help="preference rows, JSON lines (default ../shared/data/gsm8k)")
    parser.add_argument("--long", type=Path, help="rows with long prompts (default made from ../shared)")
    parser.add_argument("--trl_python", default=str(ROOT / ".venv-trl/bin/python"), help="Python with TRL 1.16")
    parser.add_argument("--work", type=Path, help="folder of records (default build/bench)")
    parser.add_argument(
        "--document", type=Path, help="page that gets the table between its markers, and a .json beside"
    )
    parser.add_argument("--again", action="store_true", help="measure everything anew")
    for field in fields(Sizes):
        kind = float if field.name == "learning_rate" else int
        parser.add_argument(f"--{field.name}", type=kind, help=f"default {getattr(FULL, field.name)}")
    return parser.parse_args()


def read_sizes(options: argparse.Namespace) -> Sizes:
    """Return the sizes of --quick or of the full run, with what the command line changes.

    Raises:
        SystemExit: pairs that are no multiple of the micro-batch, or a size below 1.
    """
    given = {field.name: getattr(options, field.name) for field in fields(Sizes)}
    sizes = replace(QUICK if options.quick else FULL, **{name: value for name, value in given.items() if value})
    for name, pairs in (("pairs", sizes.pairs), ("vocabulary_pairs", sizes.vocabulary_pairs)):
        if pairs % min(pairs, sizes.micro_batch):
            sys.exit(f"--{name} {pairs} is no multiple of --micro_batch {sizes.micro_batch}")
    if any(value is not None and value <= 0 for value in given.values()):
        sys.exit("sizes are at least 1")
    return sizes


class Bench:
    """Models, rows and records of one benchmark."""

    def __init__(self, options: argparse.Namespace, sizes: Sizes) -> None:
        """Find model and rows; nothing is measured yet."""
        self.options, self.sizes = options, sizes
        self.work = (options.work or ROOT / "build" / "bench" / ("quick" if options.quick else "full")).absolute()
        self.model = (options.model or fetch_smollm2()).absolute()
        self.rows = find_rows(options.gsm8k, options.long, self.work)
        self.sides = sides(options.trl_python)

    def take_turns(self, part: Part) -> Turns:
        """Let each side take its turn in every round; what was measured before is not measured again."""
        done: Turns = {side: [] for side in SIDES[part.kind]}
        for number in range(1, self.sizes.rounds + 1):
            for side in done:
                record = self.work / "records" / f"{part.name}-{number}-{side}.json"
                if self.options.again:
                    record.unlink(missing_ok=True)
                result, kept = take_turn(self.sides[side], self._job(part, side), record)
                done[side].append(result)
                words = f"{result['wall_seconds']:.1f} s{' (kept from an earlier run)' if kept else ''}"
                print(f"{part.name}, round {number}, {side}: {words}", file=sys.stderr, flush=True)
        return done

    def _job(self, part: Part, side: str) -> dict[str, Any]:
        folder = self.work / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        source, pairs = self.rows[part.data], self.sizes.pairs_of(part)
        if part.kind == "prepare":
            data, held_out = many_rows(source, folder / f"{part.name}.jsonl", count=self.sizes.prepared_rows), None
        else:
            data = cut_rows(source, folder / f"{part.name}.jsonl", first=0, count=pairs)
            held_out = folder / f"{part.name}-eval.jsonl" if part.evaluate else None
            if held_out is not None:
                cut_rows(source, held_out, first=pairs, count=pairs)
        model = self._large_vocabulary() if part.large_vocabulary else self.model
        names = {"data": str(data), "eval_data": None if held_out is None else str(held_out)}
        return make_job(part, side, self.sizes, model=str(model), **names)  # pyright: ignore[reportArgumentType]

    def _large_vocabulary(self) -> Path:
        folder = self.work / "models" / "large-vocabulary"
        if not (folder / "tokenizer_config.json").exists():
            command = [sys.executable, str(Path(__file__).with_name("bench_models.py")), str(self.model), str(folder)]
            subprocess.run(command, check=True)
        return folder

    def finish(self, chosen: list[Part], turns: dict[str, Turns]) -> int:
        """Print and keep the comparison; the exit code."""
        figures, comparisons = [], []
        for part in chosen:
            shape = ModelShape.read(self._large_vocabulary() if part.large_vocabulary else self.model)
            comparisons += compare_part(part, turns[part.name])
            figures += figures_of(part, turns[part.name], self.sizes.pairs_of(part), shape)
        about = self._about(turns)
        text = render(figures, comparisons, about)
        print(text)
        report = json.dumps(as_json(figures, comparisons, about, turns), indent=1, ensure_ascii=False) + "\n"
        (self.work / "report.md").write_text(text + "\n", encoding="utf-8")
        (self.work / "report.json").write_text(report, encoding="utf-8")
        page = self.options.document
        if page is not None:
            write_between(page, MARKERS, text)
            page.with_suffix(".json").write_text(report, encoding="utf-8")
        return 0 if all(comparison.same for comparison in comparisons) else 1

    def _about(self, turns: dict[str, Turns]) -> list[str]:
        sizes = self.sizes
        step = (
            f"A step has {sizes.pairs} pairs ({sizes.vocabulary_pairs} with the large vocabulary), TRL's micro-batch "
        )
        return [
            f"Machine: {platform.machine()}, {os.cpu_count()} CPUs, {sizes.threads} threads; model {self.model.name}.",
            f"{step}{sizes.micro_batch}; medians of {sizes.rounds} alternating turns.",
            f"Matrix products at the model's shapes, 10⁹ operations/s: {rates_in_words(turns)}.",
        ]


if __name__ == "__main__":
    sys.exit(main())
