"""`burnish export RUN --step N OUT`: the model of one checkpoint as an ordinary folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from burnish.cli.methods import trainer_type_of
from burnish.errors import EXIT_DONE


def run(argv: list[str]) -> int:
    """Read the words after `export`, export, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="burnish export", description="Write the model of one verified checkpoint.", allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--step", type=int, help="the checkpoint's step; default the newest good one")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    step = run_export(arguments.run, arguments.step, arguments.out)
    print(f"model of step {step}: {arguments.out}")
    return EXIT_DONE


def run_export(run_path: Path, step: int | None, out: Path) -> int:
    """Export a checkpoint; the step that was taken.

    Raises:
        BurnishError: see burnish.methods.exporting.export_checkpoint.
    """
    from burnish.methods.exporting import export_checkpoint

    return export_checkpoint(run_path, step, out, trainer_type_of)
