"""Checkpoints that are damaged, renamed, unfinished or malicious, and which one a run goes on from."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from burnish.engine.checkpoint import (
    CheckpointState,
    check_fingerprints,
    check_space,
    commit_manifest,
    find_checkpoints,
    load_checkpoint,
    open_checkpoint,
    pick_checkpoint,
    rotate,
    save_checkpoint,
    step_path,
    write_part,
)
from burnish.engine.run_dir import RunDir
from burnish.errors import ConfigError, IntegrityError

MODEL = "model.safetensors"


@pytest.fixture
def run(tmp_path) -> RunDir:
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    return run_dir


def state_of(step: int) -> CheckpointState:
    tensors = {"model": {"w": torch.full((50,), float(step))}, "optimizer": {"m": torch.full((9,), step + 0.5)}}
    return CheckpointState(step=step, counters={"epoch": step / 7}, tensors=tensors, fingerprints={"seed": "42"})


def save(run: RunDir, *steps: int, **options) -> list[Path]:
    return [save_checkpoint(run, state_of(step), **options) for step in steps]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def zero_the_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-40] + bytes(40))


def cut_to(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


DAMAGE = {
    "emptied": lambda path: os.truncate(path, 0),
    "header only": lambda path: os.truncate(path, 8),
    "halved": lambda path: cut_to(path, 0.5),
    "a flipped bit": flip_a_byte,
    "a zeroed tail": zero_the_tail,
    "deleted": Path.unlink,
    "replaced by a folder": lambda path: (path.unlink(), path.mkdir()),
    "replaced by a link": lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
}


def test_everything_saved_comes_back_bit_for_bit(run):
    odd = {
        "bfloat16": torch.randn(7).bfloat16(),
        "half": torch.randn(3, 5).half(),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        "flags": torch.tensor([True, False, True]),
        "bytes": torch.arange(13, dtype=torch.uint8),
        "integers": torch.tensor([2**62, -1]),
        "not finite": torch.tensor([float("nan"), float("inf"), -0.0]),
        "transposed": torch.randn(4, 6).T,
        "a view": torch.randn(10)[3:7],
    }
    counters = {"loss": 0.1 + 0.2, "best": float("-inf"), "nan": float("nan"), "list": [1, "二", None, True]}
    state = CheckpointState(
        step=5,
        counters=counters,
        tensors={"model": odd},
        fingerprints={"data": "abc"},
        settings={"lr": 5e-7},
        world_size=2,
    )
    loaded = load_checkpoint(save_checkpoint(run, state))
    assert list(loaded.tensors) == ["model"]
    assert set(loaded.tensors["model"]) == set(odd)
    for name, tensor in odd.items():
        found = loaded.tensors["model"][name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
        assert found.numpy(force=True).tobytes() == tensor.numpy(force=True).tobytes() if name != "bfloat16" else True
        assert torch.equal(torch.nan_to_num(found.double()), torch.nan_to_num(tensor.double())), name
    assert repr(loaded.counters) == repr(counters)
    assert (loaded.step, loaded.fingerprints, loaded.settings, loaded.world_size) == (
        5,
        {"data": "abc"},
        {"lr": 5e-7},
        2,
    )


def test_tied_weights_are_written_once_and_come_back_under_both_names(run):
    weight = torch.randn(1000)
    path = save_checkpoint(run, CheckpointState(step=1, tensors={"model": {"embed": weight, "head": weight}}))
    assert (path / MODEL).stat().st_size < 4000 * 1.5
    loaded = load_checkpoint(path).tensors["model"]
    assert torch.equal(loaded["embed"], weight)
    assert loaded["head"].data_ptr() == loaded["embed"].data_ptr()


def test_the_files_are_ordinary_safetensors(run):
    from safetensors.torch import load_file

    (path,) = save(run, 4)
    assert torch.equal(load_file(path / MODEL)["w"], torch.full((50,), 4.0))


@pytest.mark.parametrize("name", [MODEL, "optimizer.safetensors", "counters.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_and_the_previous_checkpoint_taken(damage, name, run, capsys):
    _, newest = save(run, 3, 6)
    target = newest / name
    if damage == "a zeroed tail" and name == "counters.json":
        target.write_bytes(bytes(target.stat().st_size))
    else:
        DAMAGE[damage](target)
    with pytest.raises(IntegrityError, match=name):
        load_checkpoint(newest)
    state = pick_checkpoint(run)
    assert state is not None
    assert state.step == 3
    warning = capsys.readouterr().err
    assert "step-6" in warning
    assert name in warning


def test_a_damaged_manifest_is_a_damaged_checkpoint(run, capsys):
    _, newest = save(run, 3, 6)
    path = newest / "MANIFEST.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 7'))
    assert [one.problem is None for one in find_checkpoints(run)] == [True, False]
    state = pick_checkpoint(run)
    assert state is not None
    assert state.step == 3
    assert "MANIFEST.json" in capsys.readouterr().err


def test_checkpoints_of_which_none_is_good_stop_the_run(run):
    for path in save(run, 3, 6):
        flip_a_byte(path / MODEL)
    with pytest.raises(IntegrityError, match="none of the 2 checkpoints") as caught:
        pick_checkpoint(run)
    assert caught.value.exit_code == 3
    assert MODEL in str(caught.value)


def test_a_run_without_checkpoints_starts_afresh(run, capsys):
    assert pick_checkpoint(run) is None
    (run.checkpoints_dir / "step-3").mkdir(parents=True)
    assert pick_checkpoint(run) is None
    assert capsys.readouterr().err.count("\n") == 1


def test_names_times_and_junk_decide_nothing(run, capsys):
    for path in save(run, 3, 6):
        reversed_time = 1e9 - 1e6 * int(path.name[5:])
        os.utime(path, (reversed_time, reversed_time))
    folder = run.checkpoints_dir
    (folder / "step-6").rename(folder / "archive of mine")
    (folder / "checkpoint-999").mkdir()
    (folder / "step-999").mkdir()
    (folder / ".tmpABC").write_bytes(b"x" * 100)
    (folder / "checkpoint-foo").write_text("")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "latest").symlink_to("step-3")
    assert [one.step for one in find_checkpoints(run)] == [3, 6]
    state = pick_checkpoint(run)
    assert state is not None
    assert state.step == 6
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "checkpoint-999" in warning
    save(run, 9, keep=1)
    left = sorted(path.name for path in folder.iterdir())
    assert left == [".tmpABC", "archive of mine", "checkpoint-999", "checkpoint-foo", "dangling", "latest", "step-9"]


def test_an_unhealthy_checkpoint_is_kept_but_never_resumed_by_itself(run, capsys):
    save(run, 3)
    save(run, 6, healthy=False, keep=1)
    state = pick_checkpoint(run)
    assert state is not None
    assert state.step == 3
    assert "non-finite" in capsys.readouterr().err
    state = pick_checkpoint(run, run.checkpoints_dir / "step-6")
    assert state is not None
    assert (state.step, state.healthy) == (6, False)


def test_a_path_takes_that_checkpoint_or_nothing(run, tmp_path):
    first, second = save(run, 3, 6)
    elsewhere = RunDir(tmp_path / "other")
    chosen = pick_checkpoint(elsewhere, str(first))
    assert chosen is not None
    assert (chosen.step, chosen.path) == (3, first)
    newest = pick_checkpoint(elsewhere, run.path)
    assert newest is not None
    assert newest.step == 6
    flip_a_byte(second / MODEL)
    with pytest.raises(IntegrityError, match=MODEL):
        pick_checkpoint(run, second)
    for nowhere in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="there is no checkpoint"):
            pick_checkpoint(run, nowhere)


def test_after_going_back_the_new_branch_is_the_newest(run):
    save(run, 3, 6, 9)
    save(run, 6)
    state = pick_checkpoint(run)
    assert state is not None
    assert state.path == run.checkpoints_dir / "step-6-2"
    assert step_path(run, 6) == state.path
    with pytest.raises(IntegrityError, match="step 7"):
        step_path(run, 7)
    assert not (run.checkpoints_dir / "step-6").exists()


def test_rotation_keeps_the_newest_good_ones_and_the_protected(run):
    save(run, 3, 6, 9, 12, 15)
    rotate(run, 2, protect={3})
    assert [one.step for one in find_checkpoints(run)] == [3, 12, 15]
    rotate(run, None)
    assert [one.step for one in find_checkpoints(run)] == [3, 12, 15]


@pytest.mark.parametrize("damage", ["emptied", "a flipped bit", "deleted"])
def test_rotation_never_deletes_the_last_good_one(damage, run):
    _, _, newest = save(run, 3, 6, 9)
    DAMAGE[damage](newest / MODEL)
    rotate(RunDir(run.path), 1)  # another process: nothing is known to be verified
    assert [one.step for one in find_checkpoints(run)] == [6, 9]
    state = pick_checkpoint(run)
    assert state is not None
    assert state.step == 6


def test_a_save_that_reads_back_otherwise_is_refused_and_deletes_nothing(run, monkeypatch):
    save(run, 3)
    real = os.fsync
    # a disk that takes every byte and keeps another
    monkeypatch.setattr(
        os, "fsync", lambda fd: (os.pwrite(fd, b"\1", 300) if os.fstat(fd).st_size > 250 else 0, real(fd))[1]
    )
    with pytest.raises(IntegrityError):
        save(run, 6, keep=1)
    monkeypatch.undo()
    state = pick_checkpoint(run)
    assert state is not None
    assert state.step == 3


def test_ranks_write_parts_and_one_commits(run):
    state = state_of(6)
    state.world_size = 2
    folder = open_checkpoint(run, 6)
    parts = [
        entry
        for rank in range(2)
        for entry in write_part(folder, f"rng-{rank}", {"torch": torch.full((4,), rank, dtype=torch.uint8)})
    ]
    assert find_checkpoints(run) == []
    commit_manifest(run, folder, state, [*parts, *write_part(folder, "model", state.tensors["model"])])
    mine = load_checkpoint(folder, verify="size", wanted=lambda group: group != "rng-0")
    assert set(mine.tensors) == {"model", "rng-1"}
    assert mine.world_size == 2


@pytest.mark.parametrize("path", ["../outside.safetensors", "/etc/passwd", "a/b", "..", "", ".hidden", "MANIFEST.json"])
def test_a_manifest_cannot_lead_out_of_its_folder(path, run):
    from burnish.engine.manifest import FileEntry, Manifest, write_manifest

    (folder,) = save(run, 3)
    (folder.parent / "outside.safetensors").write_bytes(b"")
    write_manifest(folder, Manifest(step=3, sequence=1, files=(FileEntry(path, 0, "0" * 64),)))
    with pytest.raises(IntegrityError, match="leave the folder"):
        load_checkpoint(folder)


@pytest.mark.parametrize("group", ["../outside", "/etc/passwd", "a/b", "..", "", ".hidden"])
def test_a_group_of_tensors_cannot_be_named_out_of_the_folder(group, run):
    folder = open_checkpoint(run, 3)
    with pytest.raises(ValueError, match="group of tensors"):
        write_part(folder, group, {})


def test_a_pickle_in_a_checkpoint_never_runs(run, tmp_path):
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    from burnish.engine.manifest import hash_file, read_manifest, write_manifest

    (folder,) = save(run, 3)
    (folder / MODEL).write_bytes(pickle.dumps(Canary()))
    manifest = read_manifest(folder)
    files = tuple(hash_file(folder / entry.path) for entry in manifest.files)
    write_manifest(folder, type(manifest)(step=3, sequence=1, files=files))
    with pytest.raises(IntegrityError, match="safetensors"):
        load_checkpoint(folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, json.dumps({"step": 3}), "\x00", "9" * 10_000])
def test_any_text_as_a_manifest_is_refused_in_one_line(text, run):
    (folder,) = save(run, 3)
    (folder / "MANIFEST.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"MANIFEST\.json"):
        load_checkpoint(folder)


def test_a_vanished_folder_is_an_integrity_error(run):
    shutil.rmtree(run.path)
    with pytest.raises(IntegrityError, match=str(run.path)):
        save(run, 3)


def test_fingerprints_that_differ_are_refused_with_a_diff():
    saved = {"seed": "42", "data": "aa", "old": "x"}
    current = {"seed": "43", "data": "aa", "template": "t"}
    assert check_fingerprints(saved, saved) == {}
    with pytest.raises(ConfigError) as caught:
        check_fingerprints(saved, current, ["old"])
    message = str(caught.value)
    assert "seed: 42 -> 43; template: (none) -> t" in message
    assert "--allow_changed seed template" in message
    assert "data:" not in message
    allowed = check_fingerprints(saved, current, ["seed", "old", "template"])
    assert allowed == {"seed": ("42", "43"), "template": (None, "t"), "old": ("x", None)}
    with pytest.raises(ConfigError, match="sed: no such key"):
        check_fingerprints(saved, current, ["sed"])


def test_a_disk_that_will_be_too_small_is_told_at_the_start(run, capsys):
    assert check_space(run, 1)
    assert not check_space(run, 10**18)
    assert "are needed" in capsys.readouterr().err


def test_a_saved_checkpoint_knows_the_length_of_the_metrics(run):
    run.append_metrics({"step": 3, "kind": "train", "loss": 1.5})
    size = run.metrics.path.stat().st_size
    assert load_checkpoint(save(run, 3)[0]).metrics_bytes == size
