"""The run directory: one folder that says what a run was asked, how far it got, and what came out.

Files: run.yaml (all settings, resolved), state.json (status, step, exit code), metrics.jsonl, data_report.json,
samples.jsonl, rejected_rows.jsonl, checkpoints/, model/; and .lock while a run is alive.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from burnish.engine.commit import is_temporary, overwrite_file, replace_file, temporary_name
from burnish.engine.manifest import scan_checkpoints
from burnish.engine.metrics_file import MetricsFile
from burnish.engine.plain_json import dump_json, parse_json, to_plain
from burnish.engine.run_lock import LOCK_NAME, RunLock, process_record
from burnish.errors import ConfigError, IntegrityError, LockedError
from burnish.secrets import redact_values

Status = Literal["running", "done", "preempted", "failed"]
_OWN_FILES = ("run.yaml", "state.json", "metrics.jsonl", "data_report.json", "samples.jsonl", "rejected_rows.jsonl")
_OWN_FOLDERS = ("checkpoints", "model")
_OWN = (*_OWN_FILES, *_OWN_FOLDERS, "report.html")


class RunDir:
    """Paths and writers of one run. `RunDir(path)` only names them; `RunDir.create` prepares and locks the folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.metrics = MetricsFile(self.path / "metrics.jsonl", before_opening=self.clear_earlier_run)
        self.resumptions: list[dict[str, Any]] = []
        """Each resumption of this run: from which checkpoint, which changes were allowed, what was lost."""
        self.verified: set[Path] = set()
        """Checkpoints that this process has read back in full since it wrote or loaded them."""
        self._lock: RunLock | None = None
        self._made: list[Path] = []
        self._doomed: dict[Path, tuple[int, int]] = {}
        self._is_fresh = False
        self.is_writer = True
        """False on ranks that follow the one which owns the folder: whatever they are told to write is left to it."""

    @classmethod
    def follow(cls, path: str | Path) -> RunDir:
        """The folder of a run that rank 0 has made and writes; this process only reads it."""
        run_dir = cls(path)
        run_dir.is_writer = False
        return run_dir

    @classmethod
    def create(cls, output_dir: str | Path, *, overwrite: bool = False, resume: str | bool | None = None) -> RunDir:
        """Make, check and lock the folder of a run.

        An earlier run is removed with `overwrite`, but only when this one writes its first state, settings, metrics or
        checkpoint, so that a run which is refused later costs nothing. Only files of the run go, never others' files.

        Args:
            output_dir: the folder; parents are made.
            overwrite: start afresh in a folder that holds an earlier run.
            resume: the value of --resume_from_checkpoint; a path inside the folder or "auto" continues its run.

        Raises:
            ConfigError: it is a file, cannot be written, or both overwrite and resume are asked for.
            LockedError: another run is using it, or an earlier run is in it.
        """
        run_dir = cls(output_dir)
        try:
            run_dir._make_folder()
            run_dir._lock = RunLock(run_dir.path)
            _try_writing(run_dir.path)
        except OSError as error:
            run_dir.discard_if_empty()
            if isinstance(error, LockedError):
                raise
            reason = error.strerror or str(error)
            raise ConfigError(f"--output_dir {output_dir} cannot be written: {reason}; give another one") from error
        try:
            run_dir._meet_earlier_run(overwrite=overwrite, resume=resume)
            run_dir._remove_leftovers()
        except (ConfigError, LockedError):
            run_dir.discard_if_empty()
            raise
        return run_dir

    @property
    def data_report(self) -> Path:
        """What the data room counted, as JSON."""
        return self.path / "data_report.json"

    @property
    def samples(self) -> Path:
        """Completions before and after training, a JSON object a line."""
        return self.path / "samples.jsonl"

    @property
    def rejected_rows(self) -> Path:
        """Rows that --on_bad_row skip left out, a JSON object a line."""
        return self.path / "rejected_rows.jsonl"

    @property
    def model_dir(self) -> Path:
        """The final model, an ordinary Hugging Face folder."""
        return self.path / "model"

    @property
    def checkpoints_dir(self) -> Path:
        """Folder of the checkpoints, step-N each."""
        return self.path / "checkpoints"

    def write_state(self, status: Status, step: int, exit_code: int | None = None) -> None:
        """Write state.json in one go: where the run stands, for programs and people.

        Raises:
            IntegrityError: the disk refused, or the folder has vanished.
        """
        record: dict[str, Any] = {"status": status, "step": step, "exit_code": exit_code} | process_record()
        if self.resumptions:
            record["resumptions"] = self.resumptions
        text = dump_json(record, indent=1) + "\n"
        try:
            self._write("state.json", text)
        except IntegrityError:
            # A full disk has room for what is there already; a run that failed must not look as if it were running.
            if not (self.is_writer and overwrite_file(self.path / "state.json", text.encode())):
                raise

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write run.yaml: all settings, resolved; secrets that stand in them are masked.

        Raises:
            IntegrityError: the disk refused, or the folder has vanished.
        """
        self._write("run.yaml", yaml.safe_dump(redact_values(to_plain(settings)), sort_keys=False, allow_unicode=True))

    def write_data_report(self, report: Mapping[str, Any]) -> None:
        """Write data_report.json.

        Raises:
            IntegrityError: the disk refused, or the folder has vanished.
        """
        self._write("data_report.json", dump_json(report, indent=1) + "\n")

    def append_samples(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append completions to samples.jsonl."""
        if self.is_writer:
            with self.samples.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one record to metrics.jsonl; it should have `step` and `kind`.

        Raises:
            IntegrityError: the disk refused, or the folder has vanished.
        """
        if self.is_writer:
            self.metrics.append(record)

    def cut_metrics(self, step: int, *, offset: int | None = None) -> None:
        """Remove the records after a checkpoint; `offset` is its `metrics_bytes`. Step 0 without it removes all."""
        if self.is_writer:
            self.metrics.cut(step, offset=offset)

    def clear_earlier_run(self) -> None:
        """Remove the run that --overwrite gave up, except for files that this run has replaced already.

        Raises:
            IntegrityError: something cannot be removed.
        """
        doomed, self._doomed = self._doomed, {}
        try:
            for path, identity in doomed.items():
                if _identity(path) == identity:
                    _remove(path)
        except OSError as error:
            raise IntegrityError(f"the earlier run in {self.path} cannot be removed: {error}") from error

    def release(self) -> None:
        """Give the folder free for other runs; further calls do nothing."""
        self.metrics.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def discard_if_empty(self) -> None:
        """Undo `create` for a run that failed before its first step, and release the folder.

        What this run wrote is removed when the folder held no earlier run and there is no record, checkpoint or model
        yet; folders that `create` made go too, unless something else has been put there.
        """
        began = self.metrics.path.exists() and self.metrics.path.stat().st_size > 0
        if self._is_fresh and not began and not any(_holds_files(self.path / name) for name in _OWN_FOLDERS):
            for name in _OWN:
                with suppress(OSError):
                    _remove(self.path / name)
        self.release()
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()

    def _write(self, name: str, text: str) -> None:
        if not self.is_writer:
            return
        self.clear_earlier_run()
        try:
            replace_file(self.path / name, text.encode())
        except OSError as error:
            raise IntegrityError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def _make_folder(self) -> None:
        missing = [self.path, *self.path.parents]
        for folder in reversed(missing[: next(i for i, one in enumerate(missing) if one.exists())]):
            with suppress(FileExistsError):
                folder.mkdir()
                self._made.append(folder)
        if not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", str(self.path))

    def _meet_earlier_run(self, *, overwrite: bool, resume: str | bool | None) -> None:
        remains = [name for name in _OWN if os.path.lexists(self.path / name)]
        if not remains:
            self._is_fresh = True
            return
        if not self._holds_run():
            raise LockedError(f"{self.path} holds {remains[0]}, which no run wrote; give a new --output_dir")
        if resume and (resume is True or resume == "auto" or Path(resume).absolute().is_relative_to(self.path)):
            if overwrite:
                raise ConfigError("--overwrite deletes the earlier run that --resume_from_checkpoint needs; give one")
            self.resumptions = _read_resumptions(self.path / "state.json")
            return
        if not overwrite:
            raise LockedError(
                f"{self.path} holds an earlier run; give --resume_from_checkpoint auto to go on with it, "
                "a new --output_dir, or --overwrite to delete it"
            )
        for path in (self.path / name for name in remains):
            self._doomed[path] = _identity(path)

    def _remove_leftovers(self) -> None:
        """Remove what a killed run had begun to write; the lock says that nobody is writing it now."""
        for path in self.path.iterdir():
            is_draft = path.name.startswith(f".{self.model_dir.name}.") and path.name.endswith(".tmp")
            if is_temporary(path) or is_draft:
                with suppress(OSError):
                    _remove(path)

    def _holds_run(self) -> bool:
        signs = ("state.json", "run.yaml")
        return any((self.path / name).is_file() for name in signs) or bool(scan_checkpoints(self.checkpoints_dir))


def _read_resumptions(path: Path) -> list[dict[str, Any]]:
    try:
        found = parse_json(path.read_bytes()).get("resumptions", [])
    except (OSError, ValueError, AttributeError):
        return []
    return found if isinstance(found, list) else []


def _try_writing(folder: Path) -> None:
    """Find out now, not at the first checkpoint, whether files can be made here."""
    probe = temporary_name(folder / "probe")
    probe.write_bytes(b"burnish")
    probe.unlink()


def _identity(path: Path) -> tuple[int, int]:
    """Tells a file from another one that has replaced it."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_ino, 0 if path.is_dir() else status.st_mtime_ns)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(entry.name != LOCK_NAME for entry in folder.iterdir())
