"""Draw the metrics of runs, and print their held-out records as a table.

    python benchmarks/plot_runs.py runs/sft --metrics loss mean_token_accuracy --plot sft.png
    python benchmarks/plot_runs.py runs/a runs/b --metrics rewards/accuracies logps/accuracies --plot both.png

Lines are training records, points what was held out (the metric's name with eval_ before it); a colour a run.
Everything is read from RUN/metrics.jsonl. A plot needs matplotlib; the table needs nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Records = list[dict[str, Any]]


def main() -> None:
    """Print a table for each run, and draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--metrics", nargs="+", default=["loss"], help="names without eval_; one panel each")
    parser.add_argument("--plot", type=Path, help="write a PNG")
    options = parser.parse_args()
    runs = {run.name: read_records(run) for run in options.runs}
    for name, records in runs.items():
        print(table(name, records, options.metrics))
    if options.plot is not None:
        plot(runs, options.metrics, options.plot)


def read_records(run: Path) -> Records:
    """Return the records of a run, in order."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def series(records: Records, kind: str, metric: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of a metric in the records of one kind, `train` or `eval`."""
    name = metric if kind == "train" else f"eval_{metric}"
    found = [(record["step"], record[name]) for record in records if record["kind"] == kind and name in record]
    return [step for step, _ in found], [value for _, value in found]


def table(name: str, records: Records, metrics: list[str]) -> str:
    """Return a Markdown table: a row for each evaluation."""
    held_out = [record for record in records if record["kind"] == "eval"]
    lines = [f"{name}, held out", "", f"| step | {' | '.join(f'`eval_{metric}`' for metric in metrics)} |"]
    lines.append("|---" * (len(metrics) + 1) + "|")
    for record in held_out:
        values = [record.get(f"eval_{metric}") for metric in metrics]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"| {record['step']} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def plot(runs: dict[str, Records], metrics: list[str], path: Path) -> None:
    """Draw a panel for each metric."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(4.2 * len(metrics), 3.2), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for number, (name, records) in enumerate(runs.items()):
            colour = f"C{number}"
            axes.plot(*series(records, "train", metric), color=colour, alpha=0.5, linewidth=1)
            held_out = series(records, "eval", metric)
            axes.plot(*held_out, color=colour, marker="o", linewidth=2, label=f"{name}, held out")
        axes.set(xlabel="optimizer step", title=metric)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
