"""The tiny job on several ranks of this machine, each a child of the forking server: torch is imported once for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from faults.harness import Ended, Job, Running, Server, assert_equal_runs
from launching import free_port

STEPS = 9
"""Steps of the job of several ranks; it saves every third."""


def start_ranks(
    server: Server, words: Sequence[Any], size: int, faults: Mapping[int, tuple[dict[str, Any], ...]] | None = None
) -> list[Running]:
    """Begin a run of `size` ranks in torchrun's variables; faults are given to ranks by their number.

    There is no launcher, so that a rank that loses another need not wait for that one's words to come first.
    """
    soon = {"name": "speak_soon"}
    port = str(free_port())
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [
        server.start(list(words), soon, *(faults or {}).get(rank, ()), **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(size)
    ]


def run_forked_ranks(
    server: Server,
    words: Sequence[Any],
    size: int,
    *,
    expect: int = 0,
    faults: Mapping[int, tuple[dict[str, Any], ...]] | None = None,
) -> list[Ended]:
    """A run of several ranks to its end; each must leave with the expected exit code."""
    ended = [rank.wait() for rank in start_ranks(server, words, size, faults)]
    assert [one.code for one in ended] == [expect] * size, "\n".join(one.err[-2000:] for one in ended)
    return ended


def words_of_two(tiny: Job, run: Path | str, *more: Any) -> list[Any]:
    """The job as two ranks run it."""
    return tiny.words(run, "--global_batch_size", 4, "--max_steps", STEPS, "--num_train_epochs", 1, *more)


def resume_two(tiny: Job, run: Path | str, *more: Any) -> list[Ended]:
    """Go on with a run of two ranks, to its end."""
    words = words_of_two(tiny, run, "--resume_from_checkpoint", "auto", *more)
    return run_forked_ranks(tiny.server, words, 2)


def assert_equal_two(run: Path, golden: Path) -> None:
    """Weights, optimizer state and records of two runs are the same, bit for bit, at the last step."""
    assert_equal_runs(run, golden, STEPS)
