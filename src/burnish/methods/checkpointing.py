"""What a run writes into its checkpoints, and how it goes on from one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from burnish.console import notice, warn
from burnish.device.sharding import is_sharded, local_part
from burnish.engine.checkpoint import (
    CheckpointState,
    check_fingerprints,
    check_space,
    checkpoint_bytes,
    load_checkpoint,
    pick_checkpoint,
    save_checkpoint,
    step_path,
)
from burnish.engine.cut import Cut
from burnish.engine.disk_space import missing_bytes
from burnish.engine.fingerprints import Defaults
from burnish.engine.invariants import start_check
from burnish.engine.loop import TrainingLoop, resume_position
from burnish.engine.method import Method
from burnish.engine.run_dir import RunDir
from burnish.engine.shards import put_weights, save_shards
from burnish.engine.snapshot import capture, copied, find_nonfinite, known_fields, restore, trainable_tensors
from burnish.engine.tensor_files import tensors_bytes
from burnish.errors import UnwrittenError
from burnish.methods.budget import find_budget
from burnish.methods.fingerprints import default_settings, update_settings
from burnish.methods.session import Session
from burnish.secrets import redact_values

OPTIMIZER_BYTES_A_WEIGHT_BYTE = 2
"""AdamW's two moments, in the weights' dtype."""
SLOW_DISK_BYTES_A_SECOND = 100e6
"""A guess at the disk until the first checkpoint has been written."""


@dataclass(slots=True)
class RunCheckpoints:
    """The checkpoints of one run."""

    args: Any
    session: Session
    method: Method
    loop: TrainingLoop
    run_dir: RunDir
    _lost_step: int | None = None
    """Step of the last save, where it was lost and the run goes on; until `settle`."""
    _saved_best: tuple[float | None, int | None] = (None, None)
    """Value and step of the best evaluation that a checkpoint knows of."""

    def save(self, *, must_succeed: bool = False) -> None:
        """Write a checkpoint of the loop as it stands; with --async_save it is written after this returns.

        Every rank calls it, and rank 0 writes. One that cannot be written is lost with --save_failure continue, unless
        it `must_succeed`: every rank finds out in `settle`.

        Raises:
            UnwrittenError: it could not be written, or the one before could not.
            IntegrityError: the run's folder has vanished.
        """
        loop = self.loop
        state = capture(loop, self.session.model, self.session.device)
        state.fingerprints = self._fingerprints()
        state.counters["default_settings"] = default_settings(self.args)
        state.settings = redact_values(asdict(self.args))
        if is_sharded(self.session.model):
            self._write_shards(state, must_succeed=must_succeed)
            return
        if not self.session.ranks.is_main:
            return
        healthy = self._is_healthy(state)
        self.loop.saving.wait()
        if not self.args.async_save:
            self._write(state, healthy=healthy, must_succeed=must_succeed)
            return
        state = copied(state)
        with self._may_be_lost(state, must_succeed=must_succeed):
            state.metrics_bytes = self.run_dir.metrics.sync()
            self.loop.saving.start(lambda: self._write(state, healthy=healthy, must_succeed=must_succeed))

    def settle(self) -> bool:
        """Wait for the save under way, and say whether it was lost; every rank calls it, and hears the same.

        An evaluation whose checkpoint was lost is not the best one any more. With --save_failure stop no save is lost,
        and nobody waits.
        """
        if self.args.save_failure == "stop":
            return False
        self.loop.saving.wait()
        lost, saved_best = self.session.ranks.share((self._lost_step, self._saved_best))
        self._lost_step, best = None, self.loop.best
        if lost is not None and best.keeps_checkpoint and best.step == lost:
            best.value, best.step = saved_best
            state = self.loop.callbacks.state
            state.best_metric, state.best_global_step = saved_best
        return lost is not None

    def abandon(self) -> None:
        """End a run that failed: a save that is under way is still committed, and its own failure not told."""
        with suppress(Exception):
            self.loop.saving.wait()

    def resume_or_start(self) -> None:
        """Restore the checkpoint that was asked for, or begin afresh with the check at step 0."""
        asked = self.args.resume_from_checkpoint
        self.run_dir.metrics.waits_for_room = self.args.save_failure == "continue"
        state = None if asked is None else self._pick(asked)
        if state is None:
            self._start()
        else:
            self._resume(state)
        self._look_at_disk()

    def finish(self) -> None:
        """Wait for the last save, and load the best weights where the settings ask for them."""
        self.loop.saving.wait()
        self.settle()
        if self.session.ranks.is_main:
            self.run_dir.metrics.sync()
        self.session.ranks.wait()  # rank 0 has committed what the others may read
        self.load_best()

    def load_best(self) -> None:
        """Put the best checkpoint's weights into the model, where the settings ask for it."""
        best = self.loop.best
        if not self.args.load_best_model_at_end or best.step is None:
            return
        state = load_checkpoint(step_path(self.run_dir, best.step), wanted=lambda group: group == "model")
        put_weights(state.tensors["model"], trainable_tensors(self.session.model), self.session.model)
        notice(f"loaded the best model: step {best.step}, {best.name} {best.value:.6g}")

    def _write(self, state: CheckpointState, *, healthy: bool, must_succeed: bool) -> None:
        with self._may_be_lost(state, must_succeed=must_succeed):
            save_checkpoint(self.run_dir, state, healthy=healthy, **self._kept(state))
            self._note_saved(state)

    def _write_shards(self, state: CheckpointState, *, must_succeed: bool) -> None:
        ranks = self.session.ranks
        bad = any(ranks.agree([not self._is_healthy(state)]))
        with self._may_be_lost(state, must_succeed=must_succeed):
            save_shards(self.run_dir, state, ranks, healthy=not bad, **self._kept(state))
            self._note_saved(state)

    def _note_saved(self, state: CheckpointState) -> None:
        self._saved_best = (state.counters["best"]["value"], state.counters["best"]["step"])
        self.run_dir.write_state("running", state.step)

    @contextmanager
    def _may_be_lost(self, state: CheckpointState, *, must_succeed: bool) -> Iterator[None]:
        """Take note of a checkpoint that cannot be written, and say so, where the run goes on without it."""
        try:
            yield
        except UnwrittenError as error:
            if must_succeed or self.args.save_failure == "stop":
                raise
            self._lost_step = state.step
            self._tell_of_lost(state, error)

    def _tell_of_lost(self, state: CheckpointState, error: UnwrittenError) -> None:
        spread = self.session.ranks.size if is_sharded(self.session.model) else 1
        missing = missing_bytes(self.run_dir, checkpoint_bytes(state) * spread)
        lack = f"; {missing / 1e6:,.1f} MB are missing" if missing else ""
        warn(
            f"step {state.step}: {error.problem}{lack}; training goes on (--save_failure continue): the older "
            "checkpoints are untouched, and the next save tries again"
        )
        record = {"problem": error.problem, "missing_bytes": missing}
        self.loop.recorder.note(record, kind="lost_save", step=state.step)

    def _kept(self, state: CheckpointState) -> dict[str, Any]:
        """Which older checkpoints stay."""
        keep, best = self.args.save_total_limit, state.counters["best"]
        best_step = best["step"] if best["keeps_checkpoint"] else None
        if keep is not None and best_step not in (None, state.step):
            keep = max(1, keep - 1)  # the best is one of those that are kept
        protect = set() if best_step is None else {best_step}
        return {"keep": keep, "protect": protect}

    def _is_healthy(self, state: CheckpointState) -> bool:
        """Whether a run may go on from this state by itself: the last step was good, and every number is finite."""
        bad = find_nonfinite(state)
        if bad is not None:
            warn(f"step {state.step}: {bad} holds NaN or infinity; its checkpoint is marked unhealthy")
        return bad is None and self.loop.counters.skipped_in_a_row == 0

    def _resume(self, state: CheckpointState) -> None:
        defaults = Defaults(state.counters.get("default_settings", {}), default_settings(self.args))
        changes = check_fingerprints(state.fingerprints, self._fingerprints(), self.args.allow_changed, defaults)
        for problem in state.lost:
            warn(f"resuming without a part of {state.path}: {problem}; it starts afresh")
        self._restore_cut(state)
        self.loop.begun = None
        restore(self.loop, self.session.model, self.session.device, state)
        self._saved_best = (self.loop.best.value, self.loop.best.step)
        self.run_dir.cut_metrics(state.step, offset=state.metrics_bytes)
        record = {"step": state.step, "checkpoint": str(state.path), "changed": changes, "lost": list(state.lost)}
        self.run_dir.resumptions.append(record)
        notice(resume_position(self.loop))

    def _look_at_disk(self) -> None:
        """Warn now where the disk will not hold what the run is going to write, and guess how long a save takes."""
        slices = {name: local_part(tensor) for name, tensor in trainable_tensors(self.session.model).items()}
        trainable = tensors_bytes(slices) * (self.session.ranks.size if is_sharded(self.session.model) else 1)
        size = trainable * (1 + OPTIMIZER_BYTES_A_WEIGHT_BYTE)
        saves = self.loop.cadences.save.count_between(self.loop.counters.step, self.loop.total_steps)
        saves += self.args.save_strategy != "no" and self.loop.total_steps > self.loop.counters.step
        kept = saves if self.args.save_total_limit is None else min(saves, self.args.save_total_limit + 1)
        check_space(self.run_dir, kept * size + trainable)
        self.loop.stop.note_time("save", size / SLOW_DISK_BYTES_A_SECOND)

    def _pick(self, asked: str) -> CheckpointState | None:
        """The checkpoint to resume: rank 0 chooses and verifies it, the others read the same one."""
        ranks, allow_lost = self.session.ranks, self.args.allow_partial_resume
        if not ranks.is_main:
            path = ranks.share(None)
            return None if path is None else load_checkpoint(path, verify="size", allow_lost=allow_lost)
        state = pick_checkpoint(self.run_dir, asked, allow_lost=allow_lost)
        ranks.share(None if state is None else state.path)
        return state

    def _start(self) -> None:
        self.run_dir.cut_metrics(0)
        passes = self.loop.passes
        passes.at_start = start_check(passes.reference, self.session.model, self.method)
        if self.loop.counters.step == 0:
            find_budget(self.args, self.session, self.loop)

    def _restore_cut(self, state: CheckpointState) -> None:
        """Cut steps as the checkpoint's run did: sums in another order would not be bit-equal.

        A smaller budget that was asked for wins: it is what a run without enough memory is resumed with.
        """
        cut, asked = Cut(**known_fields(Cut, state.counters["cut"])), self.session.asked_tokens
        self.loop.passes.cut = cut if asked is None else cut.within(asked)
        self.args.max_tokens_per_micro_batch = self.loop.passes.cut.max_tokens

    def _fingerprints(self) -> dict[str, str]:
        session = self.session
        scoring = {"shared_prompts": session.scoring.shared, "head": session.scoring.head_path.value}
        resolved = {
            "global_batch_size": session.sampler.batch_size,
            "total_steps": self.loop.total_steps,
            "precision": session.precision.name,
        }
        return {
            **session.fingerprints,
            "data": session.train.fingerprint,
            **update_settings(self.args, **resolved, **scoring),
        }
