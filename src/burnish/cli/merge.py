"""`burnish merge RUN OUT`: the adapter of a run, written into its base."""

from __future__ import annotations

import argparse
from pathlib import Path

from burnish.errors import EXIT_DONE


def run_merge(run: Path, out: Path) -> None:
    """Merge a run's adapter into its base model and say where the result is.

    Args:
        run: a run directory, or a folder with an adapter.
        out: the folder to write; it must not exist.

    Raises:
        ConfigError: `out` exists.
        ModelError: no adapter in `run`, or its base is not found.
        HubError: the base is on a hub that is out of reach.
        IntegrityError: `out` could not be written, or does not compute what base and adapter do.
    """
    from burnish.models.merge import merge_adapter

    folder = merge_adapter(run, out)
    print(f"merged model: {folder} (loads with AutoModelForCausalLM; same logits as base and adapter on a probe)")


def run(argv: list[str]) -> int:
    """Read the words after `merge`, merge, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="burnish merge", description="Write a run's adapter into its base model.", allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory, or a folder with an adapter")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    run_merge(arguments.run, arguments.out)
    return EXIT_DONE
