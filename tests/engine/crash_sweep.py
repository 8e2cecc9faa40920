"""Saves a checkpoint again and again, failing at the k-th file operation for every k.

    python crash_sweep.py sweep FOLDER FAULT:SCENARIO …
    python crash_sweep.py disk FOLDER LIMIT

FAULT is what happens at the k-th operation: `exit` ends the process; `torn` writes half of a buffer before that;
`power` also loses some of what was not yet forced to the disk, `reorder` the oldest operation alone; `eio` makes the
operation fail. Prints one JSON object a line: k, how the save ended, what looks damaged, which step `auto` finds, and
what a second, undisturbed save leaves.
One process that has torch imported and forks for each k makes a sweep cheap.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import sys
from pathlib import Path

import torch

from burnish.engine import checkpoint
from burnish.engine.checkpoint import CheckpointState, find_checkpoints, pick_checkpoint, save_checkpoint
from burnish.engine.run_dir import RunDir
from burnish.errors import IntegrityError

CRASHED = 99
REFUSED = 3
TOLERATED = 4
UNDISTURBED = 0
POWER_CUTS = ("power", "reorder")


def state_of(step: int) -> CheckpointState:
    tensors = {"model": {"w": torch.full((600,), float(step))}, "optimizer": {"m": torch.full((300,), step + 0.5)}}
    return CheckpointState(step=step, counters={"position": step}, tensors=tensors, fingerprints={"data": "d"})


def is_whole(state: CheckpointState) -> bool:
    expected = state_of(state.step)
    same = all(
        torch.equal(state.tensors[group][name], tensor)
        for group, tensors in expected.tensors.items()
        for name, tensor in tensors.items()
    )
    return same and state.counters == expected.counters


class Disk:
    """Counts file operations, and keeps what is needed to undo those that a power cut would lose."""

    WATCHED = ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir")

    def __init__(self, fault: str, at: int, shadow: Path) -> None:
        self.fault, self.at, self.shadow = fault, at, shadow
        self.count = 0
        self.real = {name: getattr(os, name) for name in self.WATCHED}
        self.dirty: set[Path] = set()
        self.pending: list[tuple[Path, str, tuple[Path, ...]]] = []
        self.backups = 0
        shadow.mkdir()
        for name in self.WATCHED:
            setattr(os, name, self.wrapper(name))

    def wrapper(self, name):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                self.strike(name, args)
            if self.fault in POWER_CUTS:
                self.remember(name, args, kwargs)
            return self.real[name](*args, **kwargs)

        return call

    def strike(self, name, args) -> None:
        if self.fault == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.fault == "torn" and name == "write":
            self.real["write"](args[0], args[1][: len(args[1]) // 2])
        if self.fault in POWER_CUTS:
            self.lose()
        os._exit(CRASHED)

    def remember(self, name, args, kwargs) -> None:
        if name == "write":
            self.dirty.add(Path(f"/proc/self/fd/{args[0]}").readlink())
        elif name == "fsync":
            path = Path(f"/proc/self/fd/{args[0]}").readlink()
            self.dirty.discard(path)
            self.pending = [one for one in self.pending if one[0] != path]
        elif name == "replace":
            source, target = Path(args[0]), Path(args[1])
            kept = (self.backup(target),) if target.exists() else ()
            if source in self.dirty:
                self.dirty = self.dirty - {source} | {target}
            self.pending.append((target.parent, "replace", (source, target, *kept)))
        elif name in {"mkdir", "unlink"}:
            folder = Path(f"/proc/self/fd/{kwargs['dir_fd']}").readlink() if kwargs.get("dir_fd") else None
            path = folder / args[0] if folder else Path(args[0])
            if name == "mkdir":
                self.pending.append((path.parent, "mkdir", (path,)))
            elif path.exists():
                self.pending.append((path.parent, "unlink", (path, self.backup(path))))

    def backup(self, path: Path) -> Path:
        self.backups += 1
        kept = self.shadow / str(self.backups)
        os.link(path, kept)
        return kept

    def lose(self) -> None:
        """Undo what no fsync has made durable: some of it, chosen by k, or only the oldest operation."""
        for name, function in self.real.items():
            setattr(os, name, function)
        choice = random.Random(self.at)
        for path in self.dirty:
            if path.exists():
                os.truncate(path, choice.choice([0, path.stat().st_size // 2]))
        lost = self.pending[:1] if self.fault == "reorder" else [one for one in self.pending if choice.random() < 0.5]
        for _, kind, paths in reversed(lost):
            if kind == "mkdir":
                shutil.rmtree(paths[0], ignore_errors=True)
            elif kind == "unlink" and paths[0].parent.exists():
                os.link(paths[1], paths[0])
            elif kind == "replace" and paths[1].exists():
                paths[1].rename(paths[0])
                if len(paths) > 2:
                    os.link(paths[2], paths[1])


def save_in_child(run_path: Path, step: int, fault: str, at: int) -> int:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        disk = Disk(fault, at, run_path.with_name(f"shadow-{at}"))
        try:
            save_checkpoint(RunDir(run_path), state_of(step), keep=1)
        except IntegrityError:
            os._exit(REFUSED)
        os._exit(TOLERATED if disk.count >= at else UNDISTURBED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sweep(fault: str, scenario: str, folder: Path) -> None:
    """`next` saves step 6 where step 3 stands; `again` where step 6 stands; `first` where nothing stands."""
    original = folder / "original"
    original.mkdir(parents=True)
    if scenario != "first":
        save_checkpoint(RunDir(original), state_of(3 if scenario == "next" else 6))
    for at in range(1, 1000):
        run_path = folder / f"run-{at}"
        shutil.copytree(original, run_path)
        code = save_in_child(run_path, 6, fault, at)
        after_fault = names(run_path)
        problems = [one.problem for one in find_checkpoints(run_path, verify="full") if one.problem]
        found = pick_checkpoint(run_path, "auto")
        step = None if found is None else found.step if is_whole(found) else "damaged"
        save_checkpoint(RunDir(run_path), state_of(9), keep=1)
        left = names(run_path)
        record = {"fault": fault, "scenario": scenario, "k": at, "code": code, "step": step}
        print(json.dumps(record | {"problems": problems, "after_fault": after_fault, "left": left}), flush=True)
        shutil.rmtree(run_path)
        if code == UNDISTURBED:
            return


def fill_the_disk(folder: Path, limit: str) -> None:
    """Save where the second checkpoint does not fit, once with the check for room and once without."""
    run = RunDir(folder / "run")
    run.path.mkdir()
    save_checkpoint(run, state_of(3))
    big = CheckpointState(step=6, tensors={"model": {"w": torch.zeros(2_000_000)}})
    if limit == "fsize":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    messages = []
    for blind in (False, True):
        if blind:
            checkpoint.checkpoint_bytes = lambda state: 0
        try:
            save_checkpoint(run, big)
        except IntegrityError as error:
            messages.append(str(error))
    found = pick_checkpoint(run, "auto")
    step = found.step if found is not None and is_whole(found) else None
    print(json.dumps({"messages": messages, "step": step, "left": names(run.path)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    task, base, *cases = sys.argv[1:]
    if task == "disk":
        fill_the_disk(Path(base), cases[0])
    else:
        for case in cases:
            fault, scenario = case.split(":")
            sweep(fault, scenario, Path(base, case.replace(":", "-")))
