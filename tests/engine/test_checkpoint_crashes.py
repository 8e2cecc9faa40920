"""A save that fails at any file operation leaves the old checkpoint or the new one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("crash_sweep.py")
UNDISTURBED, REFUSED, TOLERATED, CRASHED = 0, 3, 4, 99
PARTS = ["MANIFEST.json", "counters.json", "model.safetensors", "optimizer.safetensors", "settings.json"]
FOUND_AFTERWARDS = {"next": {3, 6}, "again": {6}, "first": {None, 6}}
CASES = [
    *[(fault, scenario) for fault in ("exit", "power") for scenario in FOUND_AFTERWARDS],
    *[("reorder", "next"), ("reorder", "again"), ("torn", "next"), ("eio", "next")],
]


def run_script(*arguments: str | Path, prefix: tuple[str, ...] = ()) -> list[dict]:
    command = [*prefix, sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[tuple[str, str], list[dict]]:
    """What each fault at each file operation led to, by fault and scenario."""
    memory = Path("/dev/shm")  # fsync is free there; what it does to a real disk is simulated
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None) as folder:
        records = run_script("sweep", folder, *(":".join(case) for case in CASES))
    return {case: [one for one in records if (one["fault"], one["scenario"]) == case] for case in CASES}


@pytest.mark.parametrize(("fault", "scenario"), CASES)
def test_a_save_that_fails_at_any_file_operation_leaves_a_good_checkpoint(fault, scenario, outcomes):
    *disturbed, last = outcomes[fault, scenario]
    assert {one["step"] for one in disturbed} == FOUND_AFTERWARDS[scenario]
    assert {one["code"] for one in disturbed} <= ({REFUSED, TOLERATED} if fault == "eio" else {CRASHED})
    # open, write, fsync and replace of five files, and the folders
    assert len(disturbed) > 25
    assert (last["code"], last["step"]) == (UNDISTURBED, 6)


@pytest.mark.parametrize(("fault", "scenario"), CASES)
def test_a_save_that_fails_never_looks_like_damage(fault, scenario, outcomes):
    """What is unfinished, or half deleted, has no manifest; so a warning of damage always means damage."""
    assert [one for one in outcomes[fault, scenario] if one["problems"]] == []


@pytest.mark.parametrize("fault", ["exit", "torn", "power", "reorder"])
def test_the_next_save_clears_what_a_crash_left(fault, outcomes):
    for one in outcomes[fault, "next"]:
        assert one["left"] == [f"checkpoints/step-9/{name}" for name in PARTS], one


def test_a_refused_save_leaves_nothing_of_its_own(outcomes):
    refused = [one for one in outcomes["eio", "next"] if one["code"] == REFUSED and one["step"] == 3]
    assert len(refused) > 15
    for one in refused:
        assert one["after_fault"] == [f"checkpoints/step-3/{name}" for name in PARTS], one


def test_a_file_size_limit_leaves_the_older_checkpoint(tmp_path):
    (outcome,) = run_script("disk", tmp_path, "fsize")
    assert outcome["step"] == 3
    assert outcome["left"] == [f"checkpoints/step-3/{name}" for name in PARTS]
    assert "File too large" in outcome["messages"][0]
    assert "step-6" in outcome["messages"][0]


def test_a_full_disk_is_seen_before_saving_and_survived_while_saving(tmp_path):
    mounting = f"mount -t tmpfs -o size=4m tmpfs {tmp_path}"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-rm", "sh", "-c", mounting], check=False).returncode
    ):
        pytest.skip("no tmpfs can be mounted here; the limit on file sizes stands in")
    prefix = ("unshare", "-rm", "sh", "-c", f'{mounting} && exec "$@"', "sh")
    (outcome,) = run_script("disk", tmp_path, "tmpfs", prefix=prefix)
    assert outcome["step"] == 3
    assert outcome["left"] == [f"checkpoints/step-3/{name}" for name in PARTS]
    before, during = outcome["messages"]
    assert "no room for a checkpoint" in before
    assert "No space left on device" in during
