"""Files that are whole or absent after a crash: temporary name, flush, fsync, rename, fsync of the folder.

Every byte is hashed on its way to the disk, so that a manifest costs no second reading. All file operations go
through `os` and `pathlib`, which is where the tests inject their faults.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 8 << 20
_TEMPORARY_SUFFIX = ".partial"


@dataclass(frozen=True)
class FileEntry:
    """What a manifest says of one file: its name inside the folder, its size in bytes, its sha256 in hex."""

    path: str
    size: int
    sha256: str


def temporary_name(path: Path) -> Path:
    """The name under which this process writes `path` until the file is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY_SUFFIX}")


def is_temporary(path: Path) -> bool:
    """Whether a file is one that a burnish process began to write and did not finish."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> FileEntry:
    """Write a file under a temporary name, fsync it, and rename it to `path`.

    The rename is durable only after `sync_folder(path.parent)`; a caller that writes several files calls it once.

    Args:
        path: where the file shall stand; an existing file is replaced in one go.
        chunks: its bytes, in pieces of any size.

    Raises:
        OSError: the disk refused; no temporary file is left, and an older `path` is untouched.
    """
    temporary = temporary_name(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            size, digest = _write_chunks(descriptor, chunks)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return FileEntry(path.name, size, digest)


def replace_file(path: Path, data: bytes) -> FileEntry:
    """Write a small file that is on the disk for good when this returns."""
    entry = write_file(path, [data])
    sync_folder(path.parent)
    return entry


def overwrite_file(path: Path, data: bytes) -> bool:
    """Write over a small file where it stands, which needs no further room; False where that fails too."""
    try:
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make names that were created, renamed or removed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no fsync for folders; they order renames themselves.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> FileEntry:
    """Read a file once and say its size and sha256.

    Raises:
        OSError: it cannot be read, or is a symbolic link, which might lead out of its folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return FileEntry(path.name, size, digest.hexdigest())


def _write_chunks(descriptor: int, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        size += view.nbytes
        for start in range(0, view.nbytes, CHUNK_BYTES):
            piece = view[start : start + CHUNK_BYTES]
            digest.update(piece)
            while piece:
                piece = piece[os.write(descriptor, piece) :]
    return size, digest.hexdigest()
