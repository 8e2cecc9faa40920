"""The loop over optimizer steps. It knows no method: it asks for losses, sums, divides once, clips, steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.batching.sampler import StepSampler
from burnish.console import progress, warn
from burnish.data.groups import PromptGroup
from burnish.engine.best import BestMetric
from burnish.engine.cadence import Cadence
from burnish.engine.callbacks import Callbacks
from burnish.engine.evaluation import Evaluation
from burnish.engine.metrics import MetricSums
from burnish.engine.passes import Passes
from burnish.engine.recorder import Recorder
from burnish.engine.settings import TrainingSettings
from burnish.errors import NumericsError

MAX_SKIPPED_IN_A_ROW = 3
"""Steps with a non-finite gradient that are skipped before the run stops."""


@dataclass(slots=True)
class Counters:
    """Where a run stands; everything here goes into a checkpoint."""

    step: int = 0
    """Optimizer steps done, skipped ones included."""
    num_tokens: int = 0
    """Tokens seen, the prompt once a completion (TRL's count)."""
    num_computed_tokens: int = 0
    """Tokens that the policy computed, padding excluded."""
    num_groups: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    loss_sum: float = 0.0
    """Sum over logged intervals of mean loss x steps, for the summary's train_loss."""
    loss_steps: int = 0
    steps_since_log: int = 0
    grad_norm: float = 0.0
    learning_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Cadences:
    """When to log, evaluate and save."""

    log: Cadence
    evaluate: Cadence
    save: Cadence


@dataclass(slots=True)
class TrainingLoop:
    """One run's loop; `run` goes from the counters' step to the last."""

    settings: TrainingSettings
    passes: Passes
    optimizer: Any
    schedule: Any
    sampler: StepSampler
    groups: Sequence[PromptGroup]
    total_steps: int
    cadences: Cadences
    evaluation: Evaluation | None
    callbacks: Callbacks
    recorder: Recorder
    best: BestMetric
    save: Any
    """Writes a checkpoint of this loop: () -> its path."""
    counters: Counters = field(default_factory=Counters)
    sums: MetricSums = field(default_factory=MetricSums)
    step_seconds: float = 0.0
    last_saved_step: int = -1

    def run(self) -> dict[str, float]:
        """Train to the last step, and give the summary record."""
        started, first_step = time.perf_counter(), self.counters.step
        first_groups = self.counters.num_groups
        self.callbacks.state.max_steps = self.total_steps
        self._tell_position()
        self.callbacks.call("on_train_begin")
        self.passes.scorer.train()
        if getattr(self.settings, "precompute_ref_log_probs", False):
            self.precompute_reference()
        if self.settings.eval_on_start and first_step == 0:
            self.evaluate()
        with progress("training", total=self.total_steps, unit="steps", done=first_step) as advance:
            while self.counters.step < self.total_steps and not self.callbacks.control.should_training_stop:
                self._one_step()
                advance(1)
        self._log_rest()
        self.passes.flush()
        self.callbacks.call("on_train_end")
        return self._summary(time.perf_counter() - started, first_step, first_groups)

    def precompute_reference(self) -> None:
        """Let the reference score all groups, cut as the first epoch will cut them, and free its memory.

        Coming in the same company as in training, its values are those that training would have got.
        """
        reference, passes = self.passes.reference, self.passes
        if reference is None or reference.live is None:
            return
        with progress("scoring the reference", total=len(self.groups), unit="groups") as advance:
            for step in range(self.sampler.steps_per_epoch):
                indices = [int(index) for index in self.sampler.groups_of(step)]
                passes.score_reference(indices, [self.groups[index] for index in indices], advance)
        if self.evaluation is not None:
            held_out = self.evaluation.groups
            passes.score_reference(range(len(held_out)), held_out, lambda _: None)
        reference.unload()

    def evaluate(self) -> dict[str, float]:
        """Evaluate now, write the record, and see whether it is the best so far."""
        if self.evaluation is None:
            return {}
        self.passes.method.set_progress(self.counters.step / self.total_steps)
        record = self.evaluation.run(self.passes)
        record["epoch"] = self.epoch
        self.recorder.write(record, kind="eval", step=self.counters.step)
        improved = self.best.update(record, self.counters.step)
        state = self.callbacks.state
        self.callbacks.call("on_evaluate", metrics=record)
        state.best_metric, state.best_global_step = self.best.value, self.best.step
        if improved and self.best.keeps_checkpoint:
            self.callbacks.control.should_save = True
        return record

    @property
    def epoch(self) -> float:
        return self.sampler.epoch_at(self.counters.step)

    def _one_step(self) -> None:
        step, control = self.counters.step, self.callbacks.control
        if step % self.sampler.steps_per_epoch == 0:
            self.callbacks.call("on_epoch_begin")
        self.callbacks.begin_step()
        began = time.perf_counter()
        self._update(step)
        self.step_seconds += time.perf_counter() - began
        done = self.counters.step
        self._tell_position()
        control = self.callbacks.control
        control.should_log = self.cadences.log.is_due(done) or (done == 1 and self.settings.logging_first_step)
        control.should_evaluate = self.cadences.evaluate.is_due(done)
        control.should_save = self.cadences.save.is_due(done)
        self.callbacks.call("on_step_end")
        if done % self.sampler.steps_per_epoch == 0:
            self.callbacks.call("on_epoch_end")
            self._unload_reference()
        self._log_evaluate_save()

    def _update(self, step: int) -> None:
        """One optimizer step: gradients of all micro-batches, clip, step."""
        indices = [int(index) for index in self.sampler.groups_of(step)]
        members = [self.groups[index] for index in indices]
        method = self.passes.method
        method.set_progress(step / self.total_steps)
        self.passes.train(indices, members, method.denominators(members), self.sums)
        self._count(members)
        self.counters.learning_rate = float(self.schedule.get_last_lr()[0])
        self.callbacks.call("on_pre_optimizer_step")
        if self._clip(indices):
            self.optimizer.step()
            self.callbacks.call("on_optimizer_step")
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.passes.reference is not None:
            self.passes.reference.after_step(self.counters.step)

    def _clip(self, indices: list[int]) -> bool:
        """Clip to the global norm; say whether the gradient is one that may step the optimizer."""
        accelerator = self.passes.accelerator
        limit = self.settings.max_grad_norm or math.inf
        norm = accelerator.clip_grad_norm_(self.passes.scorer.parameters(), limit)
        self.counters.grad_norm = float(norm)
        if math.isfinite(self.counters.grad_norm):
            self.counters.skipped_in_a_row = 0
            return True
        if accelerator.scaler is not None:
            return True  # the scaler skips the step by itself and lowers its scale
        self.counters.skipped_steps += 1
        self.counters.skipped_in_a_row += 1
        rows = ", ".join(str(self.groups[index].row) for index in indices)
        warn(f"step {self.counters.step}: the gradient is {self.counters.grad_norm}; skipped (rows {rows})")
        if self.counters.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise NumericsError(
                f"the gradient was not finite for {MAX_SKIPPED_IN_A_ROW} steps in a row (last at step "
                f"{self.counters.step}).\nThe last checkpoint is good: lower --learning_rate, or see the rows above."
            )
        return False

    def _count(self, groups: Sequence[PromptGroup]) -> None:
        counters = self.counters
        counters.step += 1
        counters.steps_since_log += 1
        counters.num_groups += len(groups)
        counters.num_tokens += sum(group.num_tokens for group in groups)
        if self.passes.cut.shared:
            counters.num_computed_tokens += sum(group.num_tree_tokens for group in groups)
        else:
            counters.num_computed_tokens += sum(group.num_tokens for group in groups)

    def _tell_position(self) -> None:
        state = self.callbacks.state
        state.global_step, state.epoch = self.counters.step, self.epoch
        state.num_input_tokens_seen = self.counters.num_tokens

    def _log_evaluate_save(self) -> None:
        if self.callbacks.control.should_log:
            self._log()
        if self.callbacks.control.should_evaluate:
            self.evaluate()
        if self.callbacks.control.should_save:
            self.save_now()

    def _unload_reference(self) -> None:
        """After an epoch, every group may be in the cache: then the reference model's memory is free."""
        reference = self.passes.reference
        if reference is None or reference.live is None or self.counters.step >= self.total_steps:
            return
        reference.flush()
        held_out = [] if self.evaluation is None else self.evaluation.groups
        if reference.covers(self.groups) and reference.covers(held_out):
            reference.unload()

    def save_now(self) -> None:
        """Write a checkpoint, unless this step has one."""
        if self.last_saved_step != self.counters.step:
            self.last_saved_step = self.counters.step
            self.passes.flush()
            self.save()
            self.callbacks.call("on_save")

    def _log(self) -> None:
        counters = self.counters
        means = self.sums.take_means(self.passes.accelerator)
        self.passes.flush()
        loss = means.pop("loss")
        counters.loss_sum += loss * counters.steps_since_log
        counters.loss_steps += counters.steps_since_log
        counters.steps_since_log = 0
        record: dict[str, float] = {
            "loss": loss,
            "grad_norm": counters.grad_norm,
            "learning_rate": counters.learning_rate,
            **means,
            "num_tokens": counters.num_tokens,
            "num_computed_tokens": counters.num_computed_tokens,
            "epoch": self.epoch,
        }
        if counters.skipped_steps:
            record["skipped_steps"] = counters.skipped_steps
        self.recorder.write(record, kind="train", step=counters.step)

    def _log_rest(self) -> None:
        """Steps since the last record count in the summary's loss, as they do in transformers."""
        counters = self.counters
        if counters.steps_since_log:
            loss = self.sums.take_means(self.passes.accelerator)["loss"]
            counters.loss_sum += loss * counters.steps_since_log
            counters.loss_steps += counters.steps_since_log
            counters.steps_since_log = 0

    def _summary(self, seconds: float, first_step: int, first_groups: int) -> dict[str, float]:
        counters = self.counters
        steps = counters.step - first_step
        record: dict[str, float] = {
            "train_runtime": seconds,
            "train_samples_per_second": (counters.num_groups - first_groups) / seconds,
            "train_steps_per_second": steps / seconds,
            "train_loss": counters.loss_sum / max(1, counters.loss_steps),
            "train_step_seconds": self.step_seconds,
            "epoch": self.epoch,
        }
        self.recorder.write(record, kind="summary", step=counters.step)
        return record


def total_steps(settings: TrainingSettings, sampler: StepSampler) -> int:
    """Optimizer steps of a run: max_steps where it is given, else whole and partial epochs, rounded up."""
    if settings.max_steps > 0:
        return settings.max_steps
    return max(1, math.ceil(settings.num_train_epochs * sampler.steps_per_epoch))


def resume_position(loop: TrainingLoop) -> str:
    """One line on where a resumed run goes on."""
    return f"resumed after step {loop.counters.step} of {loop.total_steps} (epoch {loop.epoch:.4g})"
