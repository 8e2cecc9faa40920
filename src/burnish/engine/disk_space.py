"""Is there room for the next checkpoint? Asked before it is needed."""

from __future__ import annotations

import os
from pathlib import Path

from burnish.console import warn
from burnish.engine.run_dir import RunDir
from burnish.errors import IntegrityError, UnwrittenError


def check_space(run_dir: RunDir, needed_bytes: int) -> bool:
    """Warn at the start of a run when the disk has less room than it will need; True when there is enough.

    Args:
        run_dir: the run.
        needed_bytes: room for all checkpoints that will stand at the same time, one more than are kept, and the model.
    """
    lack = _describe_lack(run_dir.path, needed_bytes)
    if lack is not None:
        warn(f"{lack}; the run may stop at a checkpoint: free some space, lower save_total_limit or raise save_steps")
    return lack is None


def has_space(run_dir: RunDir, needed_bytes: int) -> bool:
    """Whether the disk has so much room.

    Raises:
        IntegrityError: the folder has vanished.
    """
    return _describe_lack(run_dir.path, needed_bytes) is None


def require_space(run_dir: RunDir, needed_bytes: int) -> None:
    """Refuse to begin a checkpoint that cannot fit.

    Raises:
        UnwrittenError: there is less room than `needed_bytes`.
        IntegrityError: the folder has vanished.
    """
    lack = _describe_lack(run_dir.path, needed_bytes)
    if lack is not None:
        raise UnwrittenError(
            f"no room for a checkpoint: {lack}",
            "free some space or lower --save_total_limit, then --resume_from_checkpoint auto goes on",
        )


def missing_bytes(run_dir: RunDir, needed_bytes: int) -> int:
    """How much room the disk lacks for so many bytes; 0 where there is enough.

    Raises:
        IntegrityError: the folder has vanished.
    """
    return max(0, needed_bytes - _free_bytes(run_dir.path))


def _describe_lack(folder: Path, needed_bytes: int) -> str | None:
    free = _free_bytes(folder)
    if free >= needed_bytes:
        return None
    return f"{folder} has {free / 1e6:,.1f} MB free, and {needed_bytes / 1e6:,.1f} MB are needed"


def _free_bytes(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError as error:
        raise IntegrityError(f"the run's folder {folder} cannot be used any more: {error.strerror}") from error
    return status.f_bavail * status.f_frsize
