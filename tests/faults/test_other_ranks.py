"""A run goes on with another number of ranks: the same global batch, the same order of rows, equal up to rounding."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from faults.conftest import make_job
from faults.harness import Job, Server, checkpoint, copy_run, good_steps, records
from faults.several import STEPS, run_forked_ranks, words_of_two

SAME_LOSS = 1e-5
SAME_UPDATE = 1e-4
OFF = ("--disable_dropout", "true", "--logging_steps", 1)


def run_on(job: Job, run: Path | str, size: int, *more: Any) -> None:
    words = words_of_two(job, run, *OFF, *more)
    if size == 1:
        job.server.run(words)
    else:
        run_forked_ranks(job.server, words, size)


@pytest.fixture(scope="module")
def undisturbed(fault_server: Server, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run without dropout, on one rank and on two."""
    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("undisturbed"))
    for size in (1, 2):
        run_on(job, f"on-{size}", size)
    return {size: job.path(f"on-{size}") for size in (1, 2)}


@pytest.mark.parametrize(("saved_by", "resumed_by"), [(2, 1), (1, 2), (2, 4)])
def test_a_checkpoint_goes_on_with_any_number_of_ranks(
    saved_by: int, resumed_by: int, tiny: Job, undisturbed: dict[int, Path]
) -> None:
    whole, cut = undisturbed[saved_by], copy_run(undisturbed[saved_by], tiny.path("cut"))
    shutil.rmtree(cut / "model")
    for step in (6, 9):
        shutil.rmtree(checkpoint(cut, step))
    run_on(tiny, "cut", resumed_by, "--resume_from_checkpoint", "auto")
    assert good_steps(cut) == [3, 6, 9]
    expected, found = ([record for record in records(run) if record["kind"] == "train"] for run in (whole, cut))
    assert [record["step"] for record in found] == list(range(1, STEPS + 1))
    assert [record["loss"] for record in found] == pytest.approx([record["loss"] for record in expected], abs=SAME_LOSS)
    start, one, two = (load_file(path / "model.safetensors") for path in (tiny.model, whole / "model", cut / "model"))
    apart = sum((one[name] - two[name]).square().sum() for name in one)
    moved = sum((one[name] - start[name]).square().sum() for name in one)
    assert (apart / moved) ** 0.5 < SAME_UPDATE
