"""Out of memory in a step: smaller micro-batches, the same update, no step twice, and the smaller budget is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from faults.harness import Job, assert_equal_runs, checkpoint, records, state, tensors
from faults.several import start_ranks

WHOLE = ("--max_tokens_per_micro_batch", 1000)
SHORT = (*WHOLE, "--max_steps", 10, "--save_steps", 5, "--disable_dropout", "true")
SAME_UPDATE = 1e-4


def oom(above: int, where: str, **more: Any) -> dict[str, Any]:
    return {"name": "out_of_memory", "above": above, "where": where, **more}


def budget_of(run: Path) -> int:
    return yaml.safe_load((run / "run.yaml").read_text())["max_tokens_per_micro_batch"]


def movement_ratio(tiny: Job, run: Path, golden: Path, step: int = 10) -> float:
    start = load_file(tiny.model / "model.safetensors")
    one, two = (load_file(checkpoint(folder, step) / "model.safetensors") for folder in (run, golden))
    apart = sum((one[name] - two[name]).square().sum() for name in one)
    moved = sum((one[name] - start[name]).square().sum() for name in one if name in start)
    return float((apart / moved) ** 0.5)


@pytest.mark.parametrize("loss", ["sigmoid", "aot"])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_step_is_the_same_in_smaller_micro_batches(where: str, loss: str, tiny: Job) -> None:
    words = (*SHORT, "--loss_type", loss)
    tiny.run("golden", *words)
    ended = tiny.run("run", *words, faults=(oom(130, where, step=4),))
    run = tiny.path("run")
    assert movement_ratio(tiny, run, tiny.path("golden")) < SAME_UPDATE
    assert state(run)["step"] == 10
    told = [record for record in records(run) if record["kind"] == "memory"]
    assert told
    assert told[0]["before"] == 1000
    assert budget_of(run) == told[-1]["max_tokens_per_micro_batch"] <= 130
    counters = json.loads((checkpoint(run, 10) / "counters.json").read_text())
    assert counters["cut"]["max_tokens"] == budget_of(run)
    assert "step 4: out of memory (DefaultCPUAllocator: can't allocate memory" in ended.err
    assert "instead of 1,000" in ended.err


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_nothing_of_the_failed_attempt_is_left(where: str, tiny: Job) -> None:
    """Bit for bit the run that had the smaller budget from its start, dropout and all."""
    words = (*WHOLE, "--max_steps", 6, "--loss_type", "simpo", "--beta", 2)
    tiny.run("run", *words, faults=(oom(130, where),))
    run = tiny.path("run")
    tiny.run("small", *words, "--max_tokens_per_micro_batch", budget_of(run))
    one, two = tensors(run, 6), tensors(tiny.path("small"), 6)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert [r["loss"] for r in records(run) if r["kind"] == "train"] == [
        r["loss"] for r in records(tiny.path("small")) if r["kind"] == "train"
    ]


def test_a_resumed_run_keeps_the_smaller_budget_and_its_bits(tiny: Job) -> None:
    words = (*WHOLE, "--max_steps", 9)
    tiny.run("run", *words, faults=(oom(130, "backward", step=2),))
    whole = tiny.path("run")
    tiny.run("cut", *words, faults=(oom(130, "backward", step=2),))
    for step in (6, 9):
        (checkpoint(tiny.path("cut"), step) / "MANIFEST.json").unlink()
    ended = tiny.resume("cut", *words)
    assert "out of memory" not in ended.err
    assert budget_of(tiny.path("cut")) == budget_of(whole)
    assert_equal_runs(tiny.path("cut"), whole, 9)


def test_a_single_group_that_does_not_fit_names_its_row_and_steps_no_weight(tiny: Job) -> None:
    ended = tiny.run("run", *SHORT, "--save_steps", 1, expect=1, faults=(oom(10, "backward", step=3),))
    last = ended.err.strip().splitlines()[-2:]
    assert last[0].startswith("burnish: row ")
    assert "out of memory with this row alone" in last[0]
    assert "--max_length" in last[1]
    run = tiny.path("run")
    assert (state(run)["status"], state(run)["exit_code"], state(run)["step"]) == ("failed", 1, 2)


def test_memory_in_pieces_costs_one_more_try_and_changes_nothing(tiny: Job) -> None:
    words = ("--max_tokens_per_micro_batch", 1, "--max_steps", 6)
    tiny.run("golden", *words)
    tiny.run("run", *words, faults=(oom(10, "backward", step=3, times=1),))
    assert_equal_runs(tiny.path("run"), tiny.path("golden"), 6)


def test_an_evaluation_starts_over_too(tiny: Job) -> None:
    words = (*SHORT, "--eval_dataset_name", tiny.held_out, "--eval_steps", 5)
    tiny.run("golden", *words)
    tiny.run("run", *words, faults=(oom(130, "forward", training=False),))
    one, two = (
        [record["eval_loss"] for record in records(tiny.path(name)) if record["kind"] == "eval"]
        for name in ("run", "golden")
    )
    assert one == pytest.approx(two, rel=1e-5)
    assert budget_of(tiny.path("run")) <= 130


def test_one_of_two_ranks_running_out_says_what_to_resume_with(tiny: Job) -> None:
    words = (*SHORT, "--global_batch_size", 8)
    faults = {1: (oom(130, "forward", step=3, rank=1),)}
    ended = [rank.wait() for rank in start_ranks(tiny.server, tiny.words("run", *words), 2, faults)]
    assert [one.code for one in ended] == [1, 1]
    assert "out of memory in a micro-batch" in ended[1].err
    assert "Give --max_tokens_per_micro_batch" in ended[1].err
    assert "lost another rank" in ended[0].err
