"""The table of faults beside transformers' Trainer, and the share that saving takes, say what was measured."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import save_cost
import trainer_faults
from faulty_runs import SIDES
from trainer_faults import FAULTS, Outcome, table

REPOSITORY = Path(__file__).parents[2]
GOOD = Outcome(-9, 0, 6, "same", [], logs_nonfinite=False)
FAULT = {fault.name: fault for fault in FAULTS}


def test_a_cell_says_how_the_run_ended_from_where_it_went_on_and_with_which_weights() -> None:
    plain = FAULT["a flipped byte in the weights"]
    assert GOOD.in_words(plain) == "goes on from step 6; the same final weights. Says nothing"
    assert "**other** final weights" in replace(GOOD, weights="other").in_words(plain)
    stopped = replace(GOOD, resumed_code=3, weights="none", said=["Traceback …", "ValueError: a|b", "  ^^^"])
    assert stopped.in_words(plain) == (
        "the resumed run stops with code 3; no final weights. Says “ValueError: a\\|b”"
    )  # fmt: skip
    hidden = replace(GOOD, first_code=0, resumed_code=None, weights="NaN")
    words = hidden.in_words(FAULT["a row that makes the loss NaN"])
    assert words.startswith("the run ends with code 0; **final weights are NaN**, while every logged loss is a number")
    assert "with it" in replace(hidden, logs_nonfinite=True).in_words(plain)


def test_lines_that_differ_only_in_figures_and_paths_are_not_told() -> None:
    one, two = "resumed after step 6 of 12 (/tmp/a/run)", "resumed after step 9 of 12 (/tmp/b/run)"
    assert trainer_faults._plain(one) == trainer_faults._plain(two)
    assert trainer_faults._plain(one) != trainer_faults._plain("warning: checkpoint step-6 is not used")


def test_the_table_has_a_row_a_fault_and_a_column_a_side() -> None:
    faults = list(FAULTS)
    lines = table(faults, {fault.name: {side.name: GOOD for side in SIDES} for fault in faults}).splitlines()
    assert len(lines) == 2 + len(FAULTS) + 2
    assert all(line.count("|") == 4 for line in lines[: 2 + len(FAULTS)])


@pytest.mark.slow  # about 25 s: four runs of each side
def test_a_flipped_byte_is_taken_for_good_by_one_side_and_passed_over_by_the_other(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(trainer_faults.MARKERS))
    words = ["--fault", "a flipped byte in the weights", "--document", str(page)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, trainer_faults.__file__, *words], check=True, env=environment, capture_output=True)
    (outcomes,) = json.loads(page.with_suffix(".json").read_text()).values()
    assert outcomes["Trainer"]["weights"] == "other"
    assert outcomes["Trainer"]["said"] == []
    assert (outcomes["burnish"]["weights"], outcomes["burnish"]["resumed_from"]) == ("same", 3)
    assert "sha256 differs" in page.read_text()


def test_the_share_of_saving_counts_the_wait_and_what_the_writing_slows_down() -> None:
    found = {
        "sync": {"step_seconds": [40, 20, 20, 22], "save_seconds": [9, 5, 6, 7], "checkpoint_bytes": 2 * 10**9},
        "async": {"step_seconds": [40, 23, 24, 25], "save_seconds": [1, 1, 1, 2], "checkpoint_bytes": 2 * 10**9},
    }
    assert save_cost.cost(found, "sync") == {"step": 20, "save": 6, "share": 6 / (50 * 20 + 6)}
    assert save_cost.cost(found, "async") == {"step": 20, "save": 1 + 4, "share": 5 / (50 * 20 + 5)}
    text = save_cost.table(found, argparse.Namespace(pairs=16, steps=4, threads=2))
    assert "| sync | 20.0 | 6.00 | 0.60 % |" in text
    assert "2.00 GB a checkpoint" in text
