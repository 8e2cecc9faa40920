"""`burnish checkpoints RUN`: which checkpoints a run has, and whether they are what they were when written."""

from __future__ import annotations

import argparse
from pathlib import Path

from burnish.engine.manifest import FoundCheckpoint, find_ignored, is_own_name, scan_checkpoints
from burnish.engine.run_dir import RunDir
from burnish.errors import EXIT_DONE, ConfigError, IntegrityError


def run(argv: list[str]) -> int:
    """List a run's checkpoints, oldest first, and give the exit code: 3 when one is damaged."""
    parser = argparse.ArgumentParser(
        prog="burnish checkpoints", description="List and verify the checkpoints of a run.", allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory")
    parser.add_argument("--quick", action="store_true", help="compare sizes only; otherwise every byte is read")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    return print_checkpoints(arguments.run, quick=arguments.quick)


def print_checkpoints(run_path: Path, *, quick: bool = False) -> int:
    """Print one line a checkpoint and a last line on what auto would take; see `run`.

    Raises:
        ConfigError: there is no such folder.
    """
    if not run_path.is_dir():
        raise ConfigError(f"burnish checkpoints {run_path}: there is no such folder; give a run's --output_dir")
    folder = RunDir(run_path).checkpoints_dir
    found = scan_checkpoints(folder, verify="size" if quick else "full")
    for one in found:
        print(_describe(one, quick))
    for path in find_ignored(folder):
        reason = "not finished, removed by the next save" if is_own_name(path) else "not a checkpoint"
        print(f"{path.name:<16} {reason}")
    good = [one for one in found if one.problem is None and one.healthy]
    if good:
        print(f"--resume_from_checkpoint auto goes on from step {good[-1].step}")
    elif found:
        print("none is good: --resume_from_checkpoint auto would stop")
    else:
        print(f"no checkpoints in {folder}")
    return IntegrityError.exit_code if any(one.problem for one in found) else EXIT_DONE


def _describe(one: FoundCheckpoint, quick: bool) -> str:
    if one.problem is not None:
        state = f"damaged: {one.problem}"
    else:
        state = "sizes right" if quick else "verified"
        state += "" if one.healthy else ", after a non-finite step: never resumed by itself"
    step = "?" if one.step < 0 else f"{one.step:,}"
    return f"{one.path.name:<16} step {step:>9}  {one.size_bytes / 1e6:>10,.1f} MB  {state}"
