"""Which checkpoints may be deleted: never a good one before a newer one has been read back."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from burnish.console import warn
from burnish.engine.commit import sync_folder
from burnish.engine.disk_space import has_space, require_space
from burnish.engine.manifest import (
    MANIFEST_NAME,
    FoundCheckpoint,
    find_ignored,
    find_problem,
    is_own_name,
    read_manifest,
    scan_checkpoints,
)
from burnish.engine.run_dir import RunDir


def rotate(run_dir: RunDir, keep: int | None, protect: Collection[int] = ()) -> list[Path]:
    """Delete old checkpoints so that the `keep` newest good ones stay, and say which went.

    A checkpoint counts as good when it is healthy and has been read back in full; where fewer than `keep` are good,
    nothing but unfinished saves goes. Folders whose names are not ours are never touched, nor is anything newer than
    the oldest one kept.

    Args:
        run_dir: the run, locked by this process.
        keep: how many; ≥ 1. None keeps all, and removes only what unfinished saves and replaced steps left.
        protect: steps to keep besides (the best, the one resumed from).
    """
    newest_first = scan_checkpoints(run_dir.checkpoints_dir)[::-1]
    kept: list[FoundCheckpoint] = []
    doomed: list[Path] = []
    for one in newest_first:
        is_enough = keep is not None and len(kept) >= max(keep, 1)
        is_replaced = any(one.step == newer.step for newer in kept)
        if is_own_name(one.path) and (is_replaced or (is_enough and one.step not in protect)):
            doomed.append(one.path)
        elif one.healthy and one.problem is None and _is_verified(run_dir, one):
            kept.append(one)
    if kept:
        doomed += [path for path in find_ignored(run_dir.checkpoints_dir) if is_own_name(path) and _is_folder(path)]
    for path in doomed:
        remove_checkpoint(path)
    return doomed


def make_room(run_dir: RunDir, needed_bytes: int, keep: int | None, protect: Collection[int] = ()) -> None:
    """See that the disk has room for the next checkpoint, deleting first what is too old already, if that is needed.

    So a run that has filled its disk goes on once it is resumed with a lower limit.

    Raises:
        UnwrittenError, IntegrityError: as `require_space`.
    """
    if not has_space(run_dir, needed_bytes):
        rotate(run_dir, keep, protect)
    require_space(run_dir, needed_bytes)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint, manifest first, so that a crash in between leaves no checkpoint that looks damaged.

    A folder that cannot be deleted is told in a warning and left.
    """
    try:
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        sync_folder(folder)
        shutil.rmtree(folder)
    except OSError as error:
        warn(f"{folder} could not be deleted: {error.strerror or error}")


def _is_verified(run_dir: RunDir, one: FoundCheckpoint) -> bool:
    if one.path not in run_dir.verified and find_problem(one.path, read_manifest(one.path)) is None:
        run_dir.verified.add(one.path)
    return one.path in run_dir.verified


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
