"""Log-probabilities on disk, found again by what they are of: append-only, shared by runs, safe against crashes.

A folder belongs to one reference, computed one way. Each process appends to a file of its own and reads all of them at
the start, so that runs side by side need no lock. A file begins with what its values depend on (weights, precision,
kernels); one that says otherwise, copied here or left by another version, is not used. A record is a key, a length, the
values and a checksum; a record that a crash cut short, or that does not match its checksum, ends the reading of its
file. What is missing is scored again.
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from burnish.console import warn
from burnish.data.groups import Ids, Mask, PromptGroup

KEY_BYTES = 16
_HEAD = struct.Struct("<16sII")
"""Key, number of float32 values, checksum of key and values."""
_MAGIC = b"burnish-logps-2\n"

Logps = np.ndarray
"""(counted,) float32, nats."""


def completion_key(prompt: Ids, completion: Ids, mask: Mask) -> bytes:
    """Name of a completion after its prompt: a hash of both ids and of which tokens count."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in (prompt, completion, np.packbits(mask)):
        raw = np.ascontiguousarray(part).tobytes()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


def group_keys(group: PromptGroup) -> list[bytes]:
    """Keys of a group's completions, in order."""
    return [
        completion_key(group.prompt_ids, ids, mask)
        for ids, mask in zip(group.completion_ids, group.completion_mask, strict=True)
    ]


class LogpStore:
    """Values by key, in memory and in a folder."""

    def __init__(self, folder: Path | None, identity: str = "") -> None:
        """Read what earlier runs left, and warn of files that are another reference's.

        Args:
            folder: of one reference; None keeps values in memory only.
            identity: one line that says all that the values depend on besides the completion.
        """
        self.identity = identity
        self._header = _MAGIC + identity.encode() + b"\n"
        self._values: dict[bytes, Logps] = {}
        self._folder = folder
        self._file = f"{os.getpid()}-{uuid.uuid4().hex[:12]}.logps"
        if folder is not None and folder.is_dir():
            for path in sorted(folder.glob("*.logps")):
                self._values.update(_read_records(path, self._header))

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def get(self, key: bytes) -> Logps | None:
        """The values of a completion, or None."""
        return self._values.get(key)

    def add(self, records: Iterable[tuple[bytes, Logps]], *, on_disk: bool = True) -> None:
        """Keep values, on disk too unless another process writes them there; keys that are known are left as they are.

        A disk that refuses costs the cache, not the run: values stay in memory.
        """
        fresh = [(key, np.asarray(values, dtype=np.float32)) for key, values in records if key not in self._values]
        self._values.update(fresh)
        fresh = [(key, values) for key, values in fresh if np.isfinite(values).all()]  # NaN is nothing to keep for good
        if self._folder is None or not fresh or not on_disk:
            return
        try:
            self._append(self._folder / self._file, fresh)
        except OSError as error:
            warn(f"the reference cache {self._folder} cannot be written ({error.strerror}); it is kept in memory")
            self._folder = None

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint must keep: nothing where the values are on disk already, else all of them."""
        if self._folder is not None or not self._values:
            return {}
        keys = np.frombuffer(b"".join(self._values), dtype=np.uint8).reshape(-1, KEY_BYTES)
        sizes = np.array([len(values) for values in self._values.values()], dtype=np.int64)
        return {
            "keys": keys,
            "sizes": sizes,
            "logps": np.concatenate([*self._values.values(), np.empty(0, np.float32)]),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        if arrays:
            values = np.split(arrays["logps"], np.cumsum(arrays["sizes"])[:-1])
            self._values.update(zip(map(bytes, arrays["keys"]), values, strict=True))

    def _append(self, path: Path, records: Iterable[tuple[bytes, Logps]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if file.tell() == 0:
                file.write(self._header)
            file.write(b"".join(_encode(key, values) for key, values in records))


def _encode(key: bytes, values: Logps) -> bytes:
    raw = values.astype("<f4").tobytes()
    return _HEAD.pack(key, len(values), zlib.crc32(key + raw)) + raw


def _read_records(path: Path, header: bytes) -> dict[bytes, Logps]:
    """The records of a file up to the first that is not whole; none where it is another reference's, with a warning."""
    try:
        content = path.read_bytes()
    except OSError as error:
        warn(f"{path} cannot be read ({error.strerror}); its completions are scored again")
        return {}
    if not content.startswith(header):
        if content and not header.startswith(content):
            warn(f"{path} is another reference's or another version's; its completions are scored again")
        return {}
    records: dict[bytes, Logps] = {}
    position = len(header)
    while position + _HEAD.size <= len(content):
        key, count, checksum = _HEAD.unpack_from(content, position)
        position += _HEAD.size
        raw = content[position : position + 4 * count]
        if len(raw) < 4 * count or zlib.crc32(key + raw) != checksum:
            break
        records[key] = np.frombuffer(raw, dtype="<f4")
        position += 4 * count
    if position < len(content):
        warn(f"{path} is cut short or damaged after {len(records)} completions; the rest is scored again")
    return records
