"""One run per output folder: a file lock that the kernel drops when the process ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from burnish.console import notice
from burnish.errors import LockedError

LOCK_NAME = ".lock"
_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


class RunLock:
    """The lock of a run directory, held from construction to `release` or the end of the process.

    The file names the process (pid, host) for messages; what decides is `flock`, so the file of a killed run is stale
    and simply taken over. Where the file system has no flock, a live process of this host or any other host counts.

    Raises:
        LockedError: another process holds it; the message names its pid and host.
        OSError: the file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._descriptor: int | None = _take(self.path)
        _held.add(self)

    def release(self) -> None:
        """Give the folder free and remove the lock's file; further calls do nothing."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def forget(self) -> None:
        """Drop this process's share of the lock without releasing it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def process_record() -> dict[str, Any]:
    """What identifies this process to a person: pid and host."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _forget_in_child() -> None:
    # A forked data worker that outlives a killed run would otherwise keep its lock.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _take(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            owner = _read_owner(descriptor)
            _lock(descriptor, path, owner)
            if not _is_same_file(descriptor, path):
                # The owner released and removed the file between our open and our lock.
                os.close(descriptor)
                continue
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(process_record()).encode(), 0)
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
        if owner:
            notice(f"{path.parent}: took over from the run with pid {owner.get('pid')}, which ended without a word")
        return descriptor


def _lock(descriptor: int, path: Path, owner: dict[str, Any]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held = error.errno in {errno.EWOULDBLOCK, errno.EACCES}
        if held or (error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS} and _seems_alive(owner)):
            who = f"pid {owner.get('pid', 'unknown')} on {owner.get('host', 'an unknown host')}"
            raise LockedError(
                f"{path.parent} is in use by another run ({who}); wait for its end or give a new --output_dir"
                + ("" if held else f" (if that run has ended, delete {path})")
            ) from error
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            raise


def _seems_alive(owner: dict[str, Any]) -> bool:
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def _read_owner(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_same_file(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        ours, theirs = os.fstat(descriptor), path.stat()
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
    return False
