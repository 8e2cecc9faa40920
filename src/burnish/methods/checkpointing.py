"""What a run writes into its checkpoints, and how it goes on from one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from burnish.console import notice
from burnish.engine.checkpoint import (
    CheckpointState,
    check_fingerprints,
    load_checkpoint,
    pick_checkpoint,
    save_checkpoint,
    step_path,
)
from burnish.engine.invariants import StartInvariants, has_active_dropout
from burnish.engine.loop import TrainingLoop, resume_position
from burnish.engine.method import Method
from burnish.engine.passes import Cut
from burnish.engine.run_dir import RunDir
from burnish.engine.snapshot import capture, restore, trainable_tensors
from burnish.engine.tensor_files import copy_tensors
from burnish.methods.fingerprints import update_settings
from burnish.methods.session import Session
from burnish.secrets import redact_values


@dataclass(frozen=True, slots=True)
class RunCheckpoints:
    """The checkpoints of one run."""

    args: Any
    session: Session
    method: Method
    loop: TrainingLoop
    run_dir: RunDir

    def save(self) -> None:
        """Write a checkpoint of the loop as it stands."""
        loop = self.loop
        state = capture(loop, self.session.model, self.session.device)
        state.fingerprints = self._fingerprints()
        state.settings = redact_values(asdict(self.args))
        keep, best = self.args.save_total_limit, loop.best.step if loop.best.keeps_checkpoint else None
        if keep is not None and best not in (None, loop.counters.step):
            keep = max(1, keep - 1)  # the best is one of those that are kept
        save_checkpoint(self.run_dir, state, keep=keep, protect=set() if best is None else {best})
        self.run_dir.write_state("running", loop.counters.step)

    def resume_or_start(self) -> None:
        """Restore the checkpoint that was asked for, or begin afresh with the check at step 0."""
        asked = self.args.resume_from_checkpoint
        state = None if asked is None else pick_checkpoint(self.run_dir, asked)
        if state is None:
            self._start()
            return
        check_fingerprints(state.fingerprints, self._fingerprints(), self.args.allow_changed)
        self._restore_cut(state)
        restore(self.loop, self.session.model, self.session.device, state)
        self.run_dir.cut_metrics(state.step, offset=state.metrics_bytes)
        notice(resume_position(self.loop))

    def load_best(self) -> None:
        """Put the best checkpoint's weights into the model, where the settings ask for it."""
        best = self.loop.best
        if not self.args.load_best_model_at_end or best.step is None:
            return
        state = load_checkpoint(step_path(self.run_dir, best.step), wanted=lambda group: group == "model")
        copy_tensors(state.tensors["model"], trainable_tensors(self.session.model), what="model")
        notice(f"loaded the best model: step {best.step}, {best.name} {best.value:.6g}")

    def _start(self) -> None:
        self.run_dir.cut_metrics(0)
        reference = self.loop.passes.reference
        if reference is not None and reference.starts_as_policy and not has_active_dropout(self.session.model):
            self.loop.passes.at_start = StartInvariants(self.method)

    def _restore_cut(self, state: CheckpointState) -> None:
        """Cut steps as the checkpoint's run did: sums in another order would not be bit-equal."""
        self.loop.passes.cut = Cut(**state.counters["cut"])
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
            "data": session.train.groups.fingerprint,
            **update_settings(self.args, **resolved, **scoring),
        }
