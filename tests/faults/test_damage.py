"""Damaged checkpoints: named, passed over for the one before, and never taken for good ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faults.harness import Job, assert_equal_runs, checkpoint, contents, copy_run, rewrite_manifest, state

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
Damage = Callable[[Path], object]


def header_only(path: Path) -> None:
    os.truncate(path, 8 + int.from_bytes(path.read_bytes()[:8], "little"))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def zero_the_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-4096] + bytes(4096))


DAMAGES: dict[str, Damage] = {
    "emptied": lambda path: os.truncate(path, 0),
    "header only": header_only,
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a flipped byte": flip_a_byte,
    "a zeroed tail": zero_the_tail,
    "deleted": Path.unlink,
}
CASES = [
    *((MODEL, damage) for damage in DAMAGES),
    *((OPTIMIZER, damage) for damage in ("halved", "a flipped byte", "a zeroed tail", "deleted")),
    *((name, "deleted") for name in ("counters.json", "rng-0.safetensors", "metric-sums.safetensors")),
    ("reference-scores.safetensors", "a flipped byte"),
    ("MANIFEST.json", "a flipped byte"),
]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    name: str, damage: str, tiny: Job, killed: Path, golden: Path
) -> None:
    run = copy_run(killed, tiny.path("run"))
    DAMAGES[damage](checkpoint(run, 9) / name)
    ended = tiny.resume("run")
    (warning,) = [line for line in ended.err.splitlines() if "is not used" in line]
    assert "step-9" in warning
    assert name in warning
    assert "resumed after step 6 of" in ended.err
    assert_equal_runs(run, golden)


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, "rng-0.safetensors"])
def test_where_no_checkpoint_is_good_the_run_stops_with_three_and_changes_nothing(
    name: str, tiny: Job, killed: Path
) -> None:
    run = copy_run(killed, tiny.path("run"))
    for step in (3, 6, 9):
        flip_a_byte(checkpoint(run, step) / name)
    before = contents(run)
    ended = tiny.resume("run", expect=3)
    assert "none of the 3 checkpoints" in ended.err
    assert name in ended.err
    assert "Traceback" not in ended.err
    assert contents(run) == before


@pytest.mark.parametrize("name", [OPTIMIZER, "rng-0.safetensors", "metric-sums.safetensors"])
def test_a_run_goes_on_without_a_lost_part_only_when_told_to_and_writes_that_down(
    name: str, tiny: Job, killed: Path, golden: Path
) -> None:
    run = copy_run(killed, tiny.path("run"))
    for step in (3, 6):
        shutil.rmtree(checkpoint(run, step))
    (checkpoint(run, 9) / name).unlink()
    refused = tiny.resume("run", expect=3)
    assert name in refused.err
    ended = tiny.resume("run", "--allow_partial_resume")
    assert f"{name} is missing; it starts afresh" in ended.err
    (resumption,) = state(run)["resumptions"]
    assert resumption["lost"] == [f"{name} is missing"]
    if name != "metric-sums.safetensors":
        with pytest.raises(AssertionError):
            assert_equal_runs(run, golden)


@pytest.mark.parametrize("name", [MODEL, "counters.json"])
def test_lost_weights_and_counters_are_never_done_without(name: str, tiny: Job, killed: Path) -> None:
    run = copy_run(killed, tiny.path("run"))
    for step in (3, 6):
        shutil.rmtree(checkpoint(run, step))
    (checkpoint(run, 9) / name).unlink()
    assert name in tiny.resume("run", "--allow_partial_resume", expect=3).err


def rename(tensors: dict[str, torch.Tensor], key: str) -> None:
    tensors[f"{key}_renamed"] = tensors.pop(key)


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor], str], object], str]] = {
    "dropped": (lambda tensors, key: tensors.pop(key), "{key}"),
    "renamed": (rename, "{key}"),
    "added": (lambda tensors, key: tensors.update({f"{key}_more": torch.zeros(3)}), "{key}_more"),
    "another shape": (lambda tensors, key: tensors.update({key: tensors[key][..., :-1].contiguous()}), "{key}"),
    "another dtype": (lambda tensors, key: tensors.update({key: tensors[key].double()}), "{key}"),
}
KEYS = {
    MODEL: "model.layers.0.mlp.up_proj.weight",
    OPTIMIZER: "model.layers.0.mlp.up_proj.weight.exp_avg",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", KEYS)
def test_tensors_that_are_not_the_models_are_refused_by_name(name: str, change: str, tiny: Job, killed: Path) -> None:
    """The manifest agrees with the file: somebody wrote another model's tensors on purpose or by mistake."""
    run = copy_run(killed, tiny.path("run"))
    path = checkpoint(run, 9) / name
    tensors = load_file(path)
    edit, named = CHANGES[change]
    edit(tensors, KEYS[name])
    save_file(tensors, path)
    rewrite_manifest(path.parent)
    ended = tiny.resume("run", expect=3)
    assert named.format(key=KEYS[name]) in ended.err
    assert "Traceback" not in ended.err
