"""Checkpoints of a model that is spread over ranks: each rank writes its slices, and any number of ranks reads them.

A group of tensors becomes `<group>-<rank>-of-<ranks>`, one file a rank; they are slices along the first axis, in the
order of ranks. The manifest commits all of them at once, as it does a checkpoint of one file.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from burnish.device.ranks import Ranks
from burnish.device.sharding import is_sharded, local_part, own_slice
from burnish.engine.checkpoint import (
    CheckpointState,
    checkpoint_bytes,
    commit_manifest,
    open_checkpoint,
    rotate,
    write_part,
)
from burnish.engine.rotation import make_room
from burnish.engine.run_dir import RunDir
from burnish.engine.shard_files import SHARD
from burnish.engine.tensor_files import check_tensors, copy_tensors
from burnish.errors import UnwrittenError

Result = TypeVar("Result")


def shard_name(group: str, ranks: Ranks) -> str:
    """The name of this rank's slices of a group."""
    return f"{group}-{ranks.rank}-of-{ranks.size}"


def save_shards(
    run_dir: RunDir,
    state: CheckpointState,
    ranks: Ranks,
    *,
    healthy: bool,
    keep: int | None = None,
    protect: Collection[int] = (),
) -> None:
    """Write a checkpoint from all ranks: each its slices, rank 0 all else and, last, the manifest.

    Args:
        run_dir: the run; locked by rank 0, in a folder that all machines share.
        state: with the slices of this rank.
        ranks: every one of them calls it.
        healthy: the same on all ranks; as in `save_checkpoint`.
        keep: as in `save_checkpoint`.
        protect: as in `save_checkpoint`.

    Raises:
        UnwrittenError: as `save_checkpoint`, on every rank, when any of them could not write.
        IntegrityError: the run's folder has vanished.
    """

    def begin() -> str:
        make_room(run_dir, checkpoint_bytes(state) * ranks.size, keep, protect)
        return str(open_checkpoint(run_dir, state.step))

    def finish() -> None:
        commit_manifest(run_dir, folder, state, itertools.chain.from_iterable(written), healthy=healthy)
        rotate(run_dir, keep, protect)

    folder = Path(_together(ranks, lambda: begin() if ranks.is_main else "")[0])
    own = {name: tensors for name, tensors in state.tensors.items() if ranks.is_main or SHARD.fullmatch(name)}
    try:
        written = _together(ranks, lambda: [entry for name in own for entry in write_part(folder, name, own[name])])
    except UnwrittenError:
        if ranks.is_main:  # what others wrote after the one that failed had cleared the folder
            shutil.rmtree(folder, ignore_errors=True)
        raise
    _together(ranks, lambda: finish() if ranks.is_main else None)


def _together(ranks: Ranks, work: Callable[[], Result]) -> list[Result]:
    """Each rank's result, in order; where one of them could not write, every rank says so.

    Raises:
        UnwrittenError: one of them could not.
    """
    result, problem = None, None
    try:
        result = work()
    except UnwrittenError as error:
        problem = error
    told = ranks.gather((result, None if problem is None else str(problem)))
    if problem is not None:
        raise problem
    others = [text for _, text in told if text is not None]
    if others:
        raise UnwrittenError(f"another rank: {others[0]}")
    return [one for one, _ in told]


def put_weights(saved: Mapping[str, Tensor], live: Mapping[str, Tensor], model: nn.Module) -> None:
    """Copy whole tensors of a checkpoint into a model's live ones, spread over ranks or not.

    Raises:
        IntegrityError: as `copy_tensors`.
    """
    if not is_sharded(model):
        copy_tensors(saved, live, what="model")
        return
    check_tensors(saved, live, what="model")
    with torch.no_grad():
        for name, parameter in live.items():
            local_part(parameter).copy_(own_slice(saved[name], parameter))
