"""Measure what preparation costs as rows grow: seconds and peak memory, for rows of UltraFeedback's shape.

    python benchmarks/preparation_curve.py --model MODEL                       # 1k to 62k rows, a table
    python benchmarks/preparation_curve.py --model MODEL --rows 62135          # one size
    python benchmarks/preparation_curve.py --model MODEL --plot docs/preparation.png --out docs/preparation.json

Each size is prepared in a process of its own, with an empty cache; a plot needs matplotlib. Memory is the process's
peak over what it had before the first row was read: the tokenizer and the libraries.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ultrafeedback_rows

SIZES = (1000, 4000, 16_000, 32_000, 62_135)


def main() -> None:
    """Measure every size, print the table, and keep it where asked."""
    options = read_options()
    if options.measure is not None:
        print(json.dumps(measure(options.model, options.measure, options.tokenizer_backend)))
        return
    points = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.rows:
            data = Path(folder) / f"{count}.jsonl"
            ultrafeedback_rows.main(count, data)
            command = [sys.executable, __file__, "--model", str(options.model), "--measure", str(data)]
            command += ["--tokenizer_backend", options.tokenizer_backend]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            points.append({"rows": count} | json.loads(done.stdout.splitlines()[-1]))
            data.unlink()
            print(in_words(points[-1]), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(points, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        plot(points, options.plot)


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="sizes (default 1,000 to 62,135)")
    parser.add_argument("--tokenizer_backend", default="auto", choices=["auto", "huggingface"])
    parser.add_argument("--plot", type=Path, help="write a PNG")
    parser.add_argument("--out", type=Path, help="write the points as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(model: Path, data: Path, backend: Any) -> dict[str, Any]:
    """Prepare a file of rows and say what it took; then again, from the cache."""
    from transformers import AutoTokenizer

    from burnish.data.prepare import prepare_groups
    from burnish.data.settings import DataSettings
    from burnish.data.sources import load_rows

    tokenizer = AutoTokenizer.from_pretrained(model)
    settings = DataSettings(dataset_name=str(data), tokenizer_backend=backend)
    before, seconds, tokens = peak_bytes(), [], 0
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            began = time.perf_counter()
            prepared = prepare_groups(load_rows(settings), tokenizer, settings, cache_dir=Path(cache))
            seconds.append(time.perf_counter() - began)
            tokens = int(prepared.groups.num_tokens.sum())
    return {
        "seconds": seconds[0],
        "cached_seconds": seconds[1],
        "more_bytes": peak_bytes() - before,
        "tokens": tokens,
    }


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_words(point: dict[str, Any]) -> str:
    """Return a point as a line."""
    rate = point["rows"] / point["seconds"]
    memory = f"{point['more_bytes'] / 2**20:,.0f} MiB more memory"
    again = f"again from the cache {point['cached_seconds']:.2f} s"
    return f"{point['rows']:,} rows: {point['seconds']:.2f} s, {rate:,.0f} rows/s, {memory}; {again}"


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory against rows."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    rows = [point["rows"] / 1000 for point in points]
    curves = [
        (
            "seconds",
            [[point[key] for point in points] for key in ("seconds", "cached_seconds")],
            ("new", "from the cache"),
        ),
        ("more memory, MiB", [[point["more_bytes"] / 2**20 for point in points]], ("peak",)),
    ]
    for axes, (label, values, names) in zip(figure.subplots(1, 2), curves, strict=True):
        for series, name in zip(values, names, strict=True):
            axes.plot(rows, series, marker="o", label=name)
        axes.set(xlabel="thousand rows", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
