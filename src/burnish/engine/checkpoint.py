"""Checkpoints: saving all of a run's state so that a crash at any moment leaves the old one or the new one.

A save writes every file (temporary name, fsync, rename), then the manifest with their sizes and sha256, then reads all
of it back; only then may `rotate` delete older ones. Loading verifies first, and executes nothing: tensors are
safetensors, all else is JSON. Several ranks call `open_checkpoint` (rank 0), barrier, `write_part` (each), gather,
`commit_manifest` (rank 0).
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.console import warn
from burnish.engine.commit import FileEntry, sync_folder, write_file
from burnish.engine.disk_space import check_space
from burnish.engine.fingerprints import check_fingerprints
from burnish.engine.manifest import (
    MANIFEST_NAME,
    FoundCheckpoint,
    Manifest,
    Verify,
    find_ignored,
    find_problem,
    is_plain_name,
    read_manifest,
    scan_checkpoints,
    write_manifest,
)
from burnish.engine.optimizer_state import load_optimizer_tensors, optimizer_tensors
from burnish.engine.plain_json import dump_json, parse_json
from burnish.engine.rng_state import pack_rng, restore_rng
from burnish.engine.rotation import make_room, rotate
from burnish.engine.run_dir import RunDir
from burnish.engine.shard_files import group_of_shard, join_shards
from burnish.engine.tensor_files import read_tensors, tensors_bytes, write_tensors
from burnish.engine.versions import package_versions
from burnish.errors import ConfigError, IntegrityError, UnwrittenError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CheckpointState",
    "FoundCheckpoint",
    "check_fingerprints",
    "check_space",
    "checkpoint_bytes",
    "commit_manifest",
    "find_checkpoints",
    "load_checkpoint",
    "load_optimizer_tensors",
    "open_checkpoint",
    "optimizer_tensors",
    "pack_rng",
    "pick_checkpoint",
    "restore_rng",
    "rotate",
    "save_checkpoint",
    "step_path",
    "write_part",
]

AUTO = "auto"
_MAX_NAMES = 5
_TENSORS_SUFFIX = ".safetensors"
_COUNTERS, _SETTINGS = "counters.json", "settings.json"
_DISPENSABLE = re.compile(r"(optimizer(-\d+-of-\d+)?|rng-\d+|metric-sums|reference-scores)\.safetensors")
"""Files that a run can go on without, where --allow_partial_resume says so; weights and counters are not among them."""


@dataclass
class CheckpointState:
    """Everything that a run needs to go on as if it had never stopped."""

    step: int
    """Optimizer steps done; ≥ 0."""
    counters: dict[str, Any] = field(default_factory=dict)
    """Epoch, position of the sampler, schedule, running statistics: whatever has a JSON form. Tuples become lists."""
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Named tensors by group (model, optimizer, rng-0, reference, …); a group is one safetensors file."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of what must not change until the run is resumed, for `check_fingerprints`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """All settings, resolved, without secrets."""
    world_size: int = 1
    """Ranks that take part."""
    metrics_bytes: int | None = None
    """Length of metrics.jsonl; None when saving means its length at that moment."""
    path: Path | None = None
    """Where it was loaded from."""
    healthy: bool = True
    """As loaded: False for a state after a non-finite step."""
    lost: tuple[str, ...] = ()
    """As loaded with `allow_lost`: what was wrong with the files that were left out."""


def save_checkpoint(
    run_dir: RunDir,
    state: CheckpointState,
    *,
    healthy: bool = True,
    keep: int | None = None,
    protect: Collection[int] = (),
) -> Path:
    """Write a checkpoint of a single process, commit it, read it back, and then delete what is too old.

    Args:
        run_dir: the run, locked by this process.
        state: what to save; its tensors must not change meanwhile.
        healthy: False marks a state after a non-finite step, which is never resumed by itself.
        keep: how many good ones stay, this one among them; None keeps all. See `rotate`.
        protect: steps that stay besides, e.g. the best.

    Raises:
        UnwrittenError: the disk refused, or what was written reads back otherwise. The older checkpoints are as they
            were, and nothing of an unfinished one is left.
        IntegrityError: the run's folder has vanished.
    """
    make_room(run_dir, checkpoint_bytes(state), keep, protect)
    folder = open_checkpoint(run_dir, state.step)
    files = [entry for group, tensors in state.tensors.items() for entry in write_part(folder, group, tensors)]
    commit_manifest(run_dir, folder, state, files, healthy=healthy)
    rotate(run_dir, keep, protect)
    return folder


def open_checkpoint(run_dir: RunDir, step: int) -> Path:
    """Make the folder for a checkpoint of `step`: step-N, or step-N-2, … where a committed one has that name.

    Raises:
        UnwrittenError: it cannot be made.
    """
    run_dir.clear_earlier_run()
    parent = run_dir.checkpoints_dir
    names = itertools.chain([f"step-{step}"], (f"step-{step}-{count}" for count in itertools.count(2)))
    folder = next(parent / name for name in names if not (parent / name / MANIFEST_NAME).exists())
    with _disk_faults(folder):
        if not parent.is_dir():
            parent.mkdir()
            sync_folder(run_dir.path)
        if folder.exists() or folder.is_symlink():
            _remove_folder(folder)
        folder.mkdir()
        sync_folder(parent)
    return folder


def write_part(folder: Path, group: str, tensors: Mapping[str, Tensor]) -> list[FileEntry]:
    """Write one group of tensors into an open checkpoint; what it returns goes to `commit_manifest`.

    Raises:
        UnwrittenError: the disk refused; the open checkpoint is removed.
    """
    name = group + _TENSORS_SUFFIX
    if not is_plain_name(name):
        raise ValueError(
            f"a group of tensors is named with letters, digits, dots, dashes and underscores, not {group!r}"
        )
    with _disk_faults(folder):
        return [write_tensors(folder / name, tensors)]


def commit_manifest(
    run_dir: RunDir, folder: Path, state: CheckpointState, files: Iterable[FileEntry], *, healthy: bool = True
) -> None:
    """Turn an open checkpoint into a committed one, and read it back; called by one rank, when all parts are written.

    Args:
        run_dir: the run, locked by this process.
        folder: what `open_checkpoint` returned.
        state: all but its tensors is written here.
        files: what `write_part` returned on all ranks.
        healthy: as in `save_checkpoint`.

    Raises:
        IntegrityError: as in `save_checkpoint`.
    """
    with _disk_faults(folder):
        documents = ((_COUNTERS, state.counters), (_SETTINGS, state.settings))
        written = [write_file(folder / name, [dump_json(value, indent=1).encode()]) for name, value in documents]
        sync_folder(folder)
        known = scan_checkpoints(run_dir.checkpoints_dir)
        manifest = Manifest(
            step=state.step,
            sequence=1 + max((one.sequence for one in known), default=0),
            files=(*files, *written),
            healthy=healthy,
            world_size=state.world_size,
            fingerprints=dict(state.fingerprints),
            versions=dict(package_versions()),
            metrics_bytes=run_dir.metrics.sync() if state.metrics_bytes is None else state.metrics_bytes,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_manifest(folder, manifest)
    problem = find_problem(folder, read_manifest(folder))
    if problem is not None:
        raise UnwrittenError(f"{folder} does not read back as it was written: {problem}", "check the disk")
    run_dir.verified.add(folder)


def load_checkpoint(
    path: str | Path,
    *,
    verify: Verify = "full",
    wanted: Callable[[str], bool] = lambda group: True,
    allow_lost: bool = False,
) -> CheckpointState:
    """Verify a checkpoint and read it into memory.

    Args:
        path: its folder.
        allow_lost: leave out missing and damaged files that a run can go on without: optimizer, random states, sums
            of the logging interval, a reference's scores. What was wrong stands in `lost`.
        verify: "full" compares every file's sha256; "size" only sizes, for ranks that follow one that has verified.
        wanted: which groups of tensors to read, by name; a rank leaves out the others' random states.

    Raises:
        IntegrityError: a file is missing, damaged or unreadable; the message names it.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    files, lost = _without_lost(folder, manifest, verify) if allow_lost else (manifest.files, ())
    problem = find_problem(folder, replace(manifest, files=files), verify=verify)
    names = {entry.path for entry in files}
    if problem is None and not {_COUNTERS, _SETTINGS} <= names:
        problem = f"its manifest lists no {_COUNTERS} or {_SETTINGS}"
    if problem is not None:
        raise IntegrityError(
            f"{folder}: {problem}; --resume_from_checkpoint auto takes the newest good checkpoint of a run, and "
            "--allow_partial_resume goes on without a lost optimizer or random state"
        )
    groups = [name.removesuffix(_TENSORS_SUFFIX) for name in sorted(names) if name.endswith(_TENSORS_SUFFIX)]
    return CheckpointState(
        step=manifest.step,
        counters=_read_document(folder / _COUNTERS),
        tensors=join_shards(
            {
                group: read_tensors(folder / f"{group}{_TENSORS_SUFFIX}")
                for group in groups
                if wanted(group_of_shard(group))
            }
        ),
        fingerprints=dict(manifest.fingerprints),
        settings=_read_document(folder / _SETTINGS),
        world_size=manifest.world_size,
        metrics_bytes=manifest.metrics_bytes,
        path=folder,
        healthy=manifest.healthy,
        lost=lost,
    )


def _without_lost(folder: Path, manifest: Manifest, verify: Verify) -> tuple[tuple[FileEntry, ...], tuple[str, ...]]:
    """The files of a checkpoint but for damaged ones that can be done without, and what is wrong with these."""
    problems = {
        entry: find_problem(folder, replace(manifest, files=(entry,)), verify=verify)
        for entry in manifest.files
        if _DISPENSABLE.fullmatch(entry.path)
    }
    kept = tuple(entry for entry in manifest.files if problems.get(entry) is None)
    return kept, tuple(problem for problem in problems.values() if problem is not None)


def pick_checkpoint(
    run_dir: RunDir | str | Path,
    choice: str | Path = AUTO,
    *,
    wanted: Callable[[str], bool] = lambda group: True,
    allow_lost: bool = False,
) -> CheckpointState | None:
    """Load the checkpoint that --resume_from_checkpoint asks for.

    "auto" takes the newest that agrees with its manifest and is healthy, and warns of what is wrong with newer ones;
    None when there is no checkpoint at all, so the run starts afresh. A path takes that checkpoint or nothing.

    Args:
        run_dir: the run, or its folder.
        choice: "auto", a checkpoint's folder, or another run's folder (then its newest good one).
        wanted: which groups of tensors to read, as in `load_checkpoint`.
        allow_lost: take checkpoints without what a run can go on without, as in `load_checkpoint`.

    Raises:
        ConfigError: there is no checkpoint at the path.
        IntegrityError: there are checkpoints and none is good, or the one at the path is not.
    """
    run = run_dir if isinstance(run_dir, RunDir) else RunDir(run_dir)
    if choice == AUTO:
        return _pick_newest(run, wanted, allow_lost)
    path = Path(choice)
    if (path / MANIFEST_NAME).exists():
        state = load_checkpoint(path, wanted=wanted, allow_lost=allow_lost)
        if not state.healthy:
            warn(f"{path} was written after a non-finite step")
        return state
    state = _pick_newest(RunDir(path), wanted, allow_lost) if path.is_dir() else None
    if state is None:
        raise ConfigError(f"--resume_from_checkpoint {path}: there is no checkpoint (no {MANIFEST_NAME}); try auto")
    return state


def find_checkpoints(run_dir: RunDir | str | Path, *, verify: Verify = "size") -> list[FoundCheckpoint]:
    """A run's checkpoints, oldest first, each with what is wrong with it; by manifest, never by name or time."""
    run = run_dir if isinstance(run_dir, RunDir) else RunDir(run_dir)
    return scan_checkpoints(run.checkpoints_dir, verify=verify)


def step_path(run_dir: RunDir, step: int) -> Path:
    """Folder of the newest good checkpoint of a step, whatever its name.

    Raises:
        IntegrityError: there is none.
    """
    found = [one for one in find_checkpoints(run_dir) if one.step == step and one.problem is None]
    if not found:
        raise IntegrityError(f"{run_dir.checkpoints_dir} holds no good checkpoint of step {step}")
    return found[-1].path


def checkpoint_bytes(state: CheckpointState) -> int:
    """Room that a checkpoint will take on the disk, in bytes, with something to spare for headers and JSON."""
    tensors = state.tensors.values()
    headers = sum(200 * len(group) for group in tensors)
    return sum(tensors_bytes(group) for group in tensors) + headers + (1 << 16)


class _disk_faults:  # noqa: N801 (used as a statement)
    """Turns what the disk refuses inside the block into UnwrittenError, after removing the unfinished checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if not (self.folder / MANIFEST_NAME).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise UnwrittenError(
                f"checkpoint {self.folder} could not be written: {error.strerror or error}",
                "the older checkpoints are untouched, and --resume_from_checkpoint auto goes on from the newest",
            ) from error


def _pick_newest(run: RunDir, wanted: Callable[[str], bool], allow_lost: bool) -> CheckpointState | None:
    ignored = find_ignored(run.checkpoints_dir)
    if ignored:
        names = ", ".join(path.name for path in ignored[:_MAX_NAMES]) + (", …" if len(ignored) > _MAX_NAMES else "")
        warn(f"{run.checkpoints_dir}: {names} ignored: no checkpoint, or one whose saving was never finished")
    faults: list[str] = []
    for one in scan_checkpoints(run.checkpoints_dir)[::-1]:
        problem = one.problem if one.healthy else f"{one.path.name} was written after a non-finite step"
        if problem is None or (allow_lost and one.healthy and one.step >= 0):
            try:
                state = load_checkpoint(one.path, wanted=wanted, allow_lost=allow_lost)
            except IntegrityError as error:
                problem = str(error)
            else:
                if not state.lost:
                    run.verified.add(one.path)
                return state
        faults.append(f"{one.path.name}: {problem}")
        warn(f"checkpoint {one.path.name} is not used: {problem}")
    if faults:
        raise IntegrityError(
            f"none of the {len(faults)} checkpoints in {run.checkpoints_dir} is good (the newest: {faults[0]}); "
            "give another --resume_from_checkpoint, or start afresh with --overwrite or a new --output_dir"
        )
    return None


def _read_document(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{path} holds no JSON object")
    return value


def _remove_folder(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()
