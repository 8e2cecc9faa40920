"""Prepared rows found again by content: <key>.arrow, and <key>.json that vouches for it and is written last.

A file that is not what its manifest says is never used: the rows are prepared again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from burnish.data.report import DataReport
from burnish.data.store import GroupStore


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The files of one key."""

    folder: Path
    key: str

    @property
    def groups(self) -> Path:
        return self.folder / f"{self.key}.arrow"

    @property
    def rejected(self) -> Path:
        return self.folder / f"{self.key}.rejected.jsonl"

    @property
    def manifest(self) -> Path:
        return self.folder / f"{self.key}.json"

    def load(self) -> tuple[GroupStore, DataReport, list[str]] | None:
        """Return groups, report and rejected rows (JSON lines), or None where they are absent or not whole."""
        try:
            manifest = json.loads(self.manifest.read_text("utf-8"))
            if any(file_digest(self.folder / name) != digest for name, digest in manifest["files"].items()):
                return None
            rejected = self.rejected.read_text("utf-8").splitlines() if self.rejected.name in manifest["files"] else []
            report = DataReport.from_dict(manifest["report"])
            report.from_cache = True
            return GroupStore.open(self.groups, manifest["fingerprint"]), report, rejected
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
            return None

    def commit(self, groups: GroupStore, report: DataReport, rejected: list[str]) -> None:
        """Write the manifest, after which the entry counts."""
        files = {self.groups.name: file_digest(self.groups)}
        if rejected:
            write_whole(self.rejected, "".join(line + "\n" for line in rejected))
            files[self.rejected.name] = file_digest(self.rejected)
        manifest: dict[str, Any] = {
            "fingerprint": groups.fingerprint,
            "files": files,
            "report": report.as_dict(),
        }
        write_whole(self.manifest, json.dumps(manifest, ensure_ascii=True, indent=1) + "\n")


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a text file such that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
