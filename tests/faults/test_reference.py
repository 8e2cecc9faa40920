"""What the reference said comes from this reference, whatever lies in the cache and whenever the run was killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.models.logp_store import LogpStore
from faults.harness import Job, Server, assert_equal_runs, make_model, records

MOVING = ("--sync_ref_model", "--ref_model_sync_steps", 4, "--loss_type", "bco_pair")
ADAPTER = ("--use_peft", "--lora_r", 4, "--lora_dropout", 0.1, "--ref_model_mixup_alpha", 1)
SHORT = ("--max_steps", 18, "--save_steps", 6)


@pytest.fixture(scope="module", params=[(), ADAPTER], ids=["all weights", "an adapter"])
def moving(
    request: pytest.FixtureRequest, fault_server: Server, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[Any, ...], Path]:
    """Words of a run whose reference moves after every fourth step, and the uninterrupted one."""
    from faults.conftest import make_job

    words = (*MOVING, *request.param, *SHORT, "--save_steps", 1)
    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("moving"))
    job.run("golden", *words)
    return words, job.path("golden")


@pytest.mark.parametrize("step", [3, 8, 15])
def test_a_killed_run_goes_on_with_its_moved_reference(
    step: int, moving: tuple[tuple[Any, ...], Path], tiny: Job
) -> None:
    words, golden = moving
    tiny.run("run", *words, expect=-9, faults=({"name": "kill_at_step", "step": step + 1},))
    tiny.resume("run", *words)
    assert_equal_runs(tiny.path("run"), golden, 18)


def cached(tiny: Job) -> tuple[Any, ...]:
    return (*SHORT, "--reference_cache", "disk", "--reference_cache_dir", tiny.folder / "reference")


def cache_files(tiny: Job) -> list[Path]:
    return sorted((tiny.folder / "reference").rglob("*.logps"))


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (cut, "is cut short or damaged after"),
    "a flipped byte": (flip, "is cut short or damaged after"),
    "other bytes": (lambda path: path.write_bytes(bytes(4096)), "is another reference's or another version's"),
    "emptied": (lambda path: path.write_bytes(b""), ""),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_told_and_scored_again(damage: str, tiny: Job) -> None:
    words = cached(tiny)
    tiny.run("golden", *words)
    (file,) = cache_files(tiny)
    act, told = DAMAGES[damage]
    act(file)
    ended = tiny.run("run", *words)
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert losses(tiny, "run") == pytest.approx(losses(tiny, "golden"), abs=1e-5)
    ended = tiny.run("again", *words)
    assert "no reference model is loaded" in ended.err


def losses(tiny: Job, run: str) -> list[float]:
    return [record["loss"] for record in records(tiny.path(run)) if record["kind"] == "train"]


def test_a_cache_of_another_model_put_in_its_place_is_not_used(tiny: Job) -> None:
    """Same data, same template, same file name: only what the file says of its weights tells the two apart."""
    words = cached(tiny)
    other = make_model(tiny.folder / "other", seed=7)
    tiny.run("other", *words, "--model_name_or_path", other)
    (foreign,) = cache_files(tiny)
    tiny.run("golden", *words)
    (own,) = [file for file in cache_files(tiny) if file != foreign]
    shutil.copy(foreign, own)
    ended = tiny.run("run", *words)
    assert f"{own} is another reference's" in ended.err
    assert losses(tiny, "run") == pytest.approx(losses(tiny, "golden"), abs=1e-5)
    assert losses(tiny, "run") != pytest.approx(losses(tiny, "other"), abs=1e-3)


def test_a_checkpoint_of_another_reference_brings_none_of_its_scores(tiny: Job) -> None:
    """With --allow_changed a run may go on against another reference: what the first one said is not about it."""
    tiny.run("run", *SHORT, expect=-9, faults=({"name": "kill_at_step", "step": 14},))
    other = make_model(tiny.folder / "other", seed=7)
    words = (*SHORT, "--ref_model_name_or_path", other, "--allow_changed", "reference")
    ended = tiny.resume("run", *words)
    assert "the reference is another one than the checkpoint's: completions are scored again" in ended.err


def test_values_that_are_not_finite_are_not_kept_for_later_runs(tmp_path: Path) -> None:
    import numpy as np

    store = LogpStore(tmp_path, "one")
    store.add([(b"a" * 16, np.array([-1.0, np.nan], np.float32)), (b"b" * 16, np.array([-2.0], np.float32))])
    again = LogpStore(tmp_path, "one")
    assert b"b" * 16 in again
    assert b"a" * 16 not in again
    assert len(LogpStore(tmp_path, "another")) == 0
