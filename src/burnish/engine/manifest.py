"""The manifest of a checkpoint: written last, it makes a folder of files a checkpoint, and says what they must be.

A folder counts by its manifest alone. Its name, its time and the numbers in its name mean nothing: the step comes from
the manifest, and the newest checkpoint is the one with the greatest `sequence`, which counts the commits of a run. So
a run that went back to an earlier step and trained on from there has its own new checkpoints as the newest.
This module needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from burnish.engine.commit import FileEntry, hash_file, replace_file
from burnish.engine.plain_json import dump_json
from burnish.errors import IntegrityError

MANIFEST_NAME = "MANIFEST.json"
FORMAT = 1
Verify = Literal["size", "full"]
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_OWN_FOLDER = re.compile(r"step-\d+(-\d+)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """What is written about a checkpoint beside its files."""

    step: int
    """Optimizer steps done; ≥ 0."""
    sequence: int
    """Number of this commit in its run; ≥ 1, greater is newer."""
    files: tuple[FileEntry, ...]
    """Every file of the checkpoint but the manifest."""
    healthy: bool = True
    """False for a state after a non-finite step: kept for study, never resumed by itself."""
    world_size: int = 1
    """Number of ranks that wrote it."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of data, template, settings and base model."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of burnish and of the packages below it."""
    metrics_bytes: int | None = None
    """Length of the run's metrics.jsonl at this step, in bytes."""
    created: str = ""
    """Date and time for people; nothing is decided by it."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """A folder with a manifest, and what is wrong with it, if anything."""

    step: int
    """Optimizer steps done, from the manifest; -1 where it cannot be read."""
    path: Path
    problem: str | None
    """One line, naming the file; None when it agrees with its manifest."""
    sequence: int = 0
    healthy: bool = True
    size_bytes: int = 0


def is_plain_name(name: str) -> bool:
    """Whether a file name stays in its folder: letters, digits, dot, dash and underscore, no leading dot."""
    return bool(_PLAIN_NAME.fullmatch(name)) and name != MANIFEST_NAME


def is_own_name(folder: Path) -> bool:
    """Whether a folder is named as burnish names checkpoints, and may therefore be deleted when it is too old."""
    return bool(_OWN_FOLDER.fullmatch(folder.name))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit a checkpoint: everything that its manifest lists must be on the disk already.

    Raises:
        OSError: the disk refused.
    """
    body = asdict(manifest) | {"format": FORMAT}
    text = dump_json(body | {"manifest_sha256": _digest(body)}, indent=1)
    replace_file(folder / MANIFEST_NAME, text.encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest; the files that it lists are not looked at.

    Raises:
        IntegrityError: it is missing, damaged, of another format, or lists a path that leaves the folder.
    """
    path = folder / MANIFEST_NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return _parse_manifest(json.loads(file.read()))
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} is no manifest of a checkpoint: {error}") from error


def find_problem(folder: Path, manifest: Manifest, *, verify: Verify = "full") -> str | None:
    """Compare a checkpoint's files with its manifest; None when they agree, else what is wrong, naming the file.

    Args:
        folder: the checkpoint.
        manifest: what `read_manifest(folder)` said.
        verify: "size" looks at sizes only; "full" reads every file and compares its sha256.
    """
    problem = next(filter(None, (_size_problem(folder / entry.path, entry) for entry in manifest.files)), None)
    if problem is None and verify == "full":
        problem = next(filter(None, (_content_problem(folder / entry.path, entry) for entry in manifest.files)), None)
    return problem


def scan_checkpoints(checkpoints_dir: Path, *, verify: Verify = "size") -> list[FoundCheckpoint]:
    """All folders with a manifest, oldest first; those without one are not checkpoints (`find_ignored` lists them).

    Those whose manifest cannot be read come last.

    Args:
        checkpoints_dir: `RunDir.checkpoints_dir`; need not exist.
        verify: how thoroughly `problem` is looked for, as in `find_problem`.
    """
    folders = [entry for entry in _entries(checkpoints_dir) if _has_manifest(entry)]
    found = [_look_at(folder, verify) for folder in folders]
    # One whose manifest cannot be read may be the newest; standing last, it is never passed over in silence.
    return sorted(found, key=lambda one: (one.step < 0, one.sequence, one.step, one.path.name))


def find_ignored(checkpoints_dir: Path) -> list[Path]:
    """What stands among the checkpoints and has no manifest: unfinished saves and things that others put there."""
    return sorted(entry for entry in _entries(checkpoints_dir) if not _has_manifest(entry))


def _entries(checkpoints_dir: Path) -> list[Path]:
    return list(checkpoints_dir.iterdir()) if checkpoints_dir.is_dir() else []


def _has_manifest(entry: Path) -> bool:
    # A link is never a checkpoint of this run: it would be counted twice, or point out of the run.
    return not entry.is_symlink() and entry.is_dir() and os.path.lexists(entry / MANIFEST_NAME)


def _look_at(folder: Path, verify: Verify) -> FoundCheckpoint:
    try:
        manifest = read_manifest(folder)
    except IntegrityError as error:
        return FoundCheckpoint(-1, folder, str(error))
    return FoundCheckpoint(
        manifest.step,
        folder,
        find_problem(folder, manifest, verify=verify),
        manifest.sequence,
        manifest.healthy,
        sum(entry.size for entry in manifest.files),
    )


def _size_problem(path: Path, entry: FileEntry) -> str | None:
    try:
        status = path.lstat()
    except OSError as error:
        return f"{entry.path} is missing" if isinstance(error, FileNotFoundError) else f"{entry.path}: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return f"{entry.path} is no regular file"
    if status.st_size != entry.size:
        return f"{entry.path} has {status.st_size:,} bytes instead of {entry.size:,}"
    return None


def _content_problem(path: Path, entry: FileEntry) -> str | None:
    try:
        found = hash_file(path)
    except OSError as error:
        return f"{entry.path} cannot be read: {error.strerror}"
    return None if found == entry else f"{entry.path} was changed or damaged after it was written (its sha256 differs)"


def _digest(body: dict[str, Any]) -> str:
    """Sha256 of a manifest's content, so that a flipped digit in it is noticed."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse_manifest(body: dict[str, Any]) -> Manifest:
    if body.pop("manifest_sha256") != _digest(body):
        raise ValueError("it was changed or damaged after it was written")
    if body.pop("format") != FORMAT:
        raise ValueError(f"this version of burnish reads format {FORMAT}")
    files = tuple(_parse_entry(entry) for entry in body.pop("files"))
    if len({entry.path for entry in files}) != len(files):
        raise ValueError("it lists a file twice")
    manifest = Manifest(files=files, **body)
    for name in ("step", "sequence", "world_size"):
        value = getattr(manifest, name)
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} is {value!r}")
    if type(manifest.healthy) is not bool:
        raise ValueError(f"healthy is {manifest.healthy!r}")
    return manifest


def _parse_entry(entry: dict[str, Any]) -> FileEntry:
    path, size, digest = entry["path"], entry["size"], entry["sha256"]
    if type(path) is not str or not is_plain_name(path):
        raise ValueError(f"the path {path!r} would leave the folder or is no plain name")
    if type(size) is not int or size < 0:
        raise ValueError(f"the size of {path} is {size!r}")
    if type(digest) is not str or not _SHA256.fullmatch(digest):
        raise ValueError(f"the sha256 of {path} is {digest!r}")
    return FileEntry(path, size, digest)
