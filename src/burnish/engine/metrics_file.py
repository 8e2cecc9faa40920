"""metrics.jsonl: the records of a run, one JSON object a line, unrounded, cut back when a run resumes.

NaN and infinities are the strings "NaN", "Infinity" and "-Infinity" (see plain_json), so every line is valid JSON and
no value is hidden; `read_metrics` gives them back as floats.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from burnish.console import warn
from burnish.engine.plain_json import dump_json, parse_json
from burnish.errors import IntegrityError, UnwrittenError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class MetricsFile:
    """Appends records; each is one write, so a crash can tear the last line only."""

    def __init__(self, path: Path, before_opening: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.waits_for_room = False
        """Whether records that find no room wait in memory for the next one's turn, instead of ending the run."""
        self._before_opening = before_opening
        self._descriptor: int | None = None
        self._waiting = b""
        self._lock = threading.Lock()  # a save beside the training writes records too

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, which should have `step` and `kind`.

        Raises:
            UnwrittenError: the disk refused.
            IntegrityError: the folder has vanished.
            TypeError: a value has no JSON form.
        """
        line = (dump_json(record) + "\n").encode()
        with self._lock:
            had_room, self._waiting = not self._waiting, self._waiting + line
            try:
                self._write_waiting()
            except OSError as error:
                if not (self.waits_for_room and error.errno in _NO_ROOM):
                    raise self._refusal(error) from error
                if had_room:
                    warn(f"{self._refusal(error)}; records wait in memory until there is room")

    def _write_waiting(self) -> None:
        """Write all lines that wait, or none of them."""
        descriptor = self._open()
        if not self._stands(descriptor):
            raise IntegrityError(f"{self.path} has vanished or was replaced while the run wrote it")
        size, rest = os.fstat(descriptor).st_size, self._waiting
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        self._waiting = b""

    def _refusal(self, error: OSError) -> UnwrittenError:
        return UnwrittenError(f"{self.path} cannot be written: {error.strerror or error}")

    def _stands(self, descriptor: int) -> bool:
        """Whether what is written can still be found under the path."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def size(self) -> int:
        """Length of the file in bytes; 0 where there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def sync(self) -> int:
        """Put all records on the disk for good and return the file's length in bytes.

        Raises:
            UnwrittenError: the disk refused.
        """
        if self._descriptor is None and not self.path.exists() and not self._waiting:
            return 0
        try:
            with self._lock:
                if self._waiting:
                    self._write_waiting()
                descriptor = self._open()
                os.fsync(descriptor)
                return os.fstat(descriptor).st_size
        except OSError as error:
            raise self._refusal(error) from error

    def cut(self, step: int, *, offset: int | None = None) -> None:
        """Remove what was written after a checkpoint, and a torn last line.

        Args:
            step: the checkpoint's step; records of later steps go. 0 without an offset removes all records.
            offset: the file's length at the checkpoint, in bytes; decides alone where it is known and fits the file.
        """
        if not self.path.exists():
            return
        size = self.path.stat().st_size
        if offset is not None and not self._ends_a_line(offset, size):
            warn(f"{self.path} is not the file that the checkpoint of step {step} knew; cut by step instead")
            offset = None
        end = self._find_end(step) if offset is None else offset
        if end < size:
            descriptor = self._open()
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)

    def close(self) -> None:
        """Close the file; a later append opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._before_opening()
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        return self._descriptor

    def _ends_a_line(self, offset: int, size: int) -> bool:
        if not 0 < offset <= size:
            return offset == 0
        with self.path.open("rb") as file:
            file.seek(offset - 1)
            return file.read(1) == b"\n"

    def _find_end(self, step: int) -> int:
        end = 0
        if step <= 0:
            return end
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or _step_of(line) > step:
                    break
                end += len(line)
        return end


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a run in order; a torn last line (the run is writing, or was killed) is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield parse_json(line)


def _step_of(line: bytes) -> float:
    """Step of a record; a damaged line counts as infinitely late, and is cut with all that follows."""
    try:
        return float(parse_json(line).get("step", 0))
    except (ValueError, TypeError, AttributeError):
        return float("inf")
