"""The loop over optimizer steps. It knows no method: it asks for losses, sums, divides once, clips, steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.batching.sampler import StepSampler
from burnish.console import progress, warn
from burnish.data.groups import PromptGroup
from burnish.device.sharding import whole
from burnish.engine.background import BackgroundJob
from burnish.engine.begun_step import BegunStep, compute_step
from burnish.engine.best import BestMetric
from burnish.engine.cadence import Cadence
from burnish.engine.callbacks import Callbacks
from burnish.engine.counters import Counters
from burnish.engine.evaluation import EvaluationSets
from burnish.engine.health import HealthWatch, without_health
from burnish.engine.interruption import StopRequest
from burnish.engine.metrics import MetricSums
from burnish.engine.numerics import Verdict, judge_step
from burnish.engine.passes import Passes
from burnish.engine.precompute import precompute_reference
from burnish.engine.recorder import Recorder
from burnish.engine.settings import TrainingSettings
from burnish.engine.watchdog import Watchdog
from burnish.errors import NumericsError, Preempted


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
    evaluation: EvaluationSets | None
    callbacks: Callbacks
    recorder: Recorder
    best: BestMetric
    save: Callable[[bool], None]
    """Writes a checkpoint of this loop; told whether the run ends where it cannot, whatever the settings say."""
    settle: Callable[[], bool]
    """Where the run outlives lost saves: waits for the one under way, and says on every rank whether it was lost."""
    saving: BackgroundJob = field(default_factory=BackgroundJob)
    """The save that goes on beside the training, with --async_save."""
    stop: StopRequest = field(default_factory=StopRequest)
    """Asked after every step whether the run shall end early."""
    watchdog: Watchdog = field(default_factory=Watchdog)
    """Ends a run that makes no progress."""
    begun: BegunStep | None = None
    """The first step, where its gradients were computed before all rows were there."""
    counters: Counters = field(default_factory=Counters)
    sums: MetricSums = field(default_factory=MetricSums)
    step_seconds: float = 0.0
    last_saved_step: int = -1

    def run(self) -> dict[str, float]:
        """Train to the last step, and give the summary record.

        Raises:
            Preempted: the run was asked to stop; its checkpoint is committed.
            NumericsError: too many steps in a row had to be skipped, or a loss spike stops the run.
        """
        started, first_step = time.perf_counter(), self.counters.step
        first_groups = self.counters.num_groups
        self.callbacks.state.max_steps = self.total_steps
        self._tell_position()
        self.callbacks.call("on_train_begin")
        self.passes.scorer.train()
        if getattr(self.settings, "precompute_ref_log_probs", False):
            sets = [] if self.evaluation is None else [one.groups for one in self.evaluation.sets]
            precompute_reference(self.passes, self.groups, sets, self.sampler, total_steps=self.total_steps)
        if (self.settings.eval_on_start and first_step == 0) or self.counters.owes_evaluation:
            self._evaluate_then_save()
        self._leave_if_asked()
        with progress("training", total=self.total_steps, unit="steps", done=first_step) as advance:
            while self.counters.step < self.total_steps and not self.callbacks.control.should_training_stop:
                self._one_step()
                advance(1)
                self.saving.raise_if_failed()
                self._leave_if_asked()
        self._log_rest()
        self.passes.flush()
        self.callbacks.call("on_train_end")
        return self._summary(time.perf_counter() - started, first_step, first_groups)

    def evaluate(self) -> dict[str, float]:
        """Evaluate now, write each set's record, see whether it is the best so far, and give all metrics."""
        if self.evaluation is None:
            return {}
        self.passes.method.set_progress(self.counters.step / self.total_steps)
        if self.best.keeps_checkpoint:
            self._settle_save()  # what has no checkpoint is not the best so far
        records = self.evaluation.run(self.passes, gives_up=self._gives_up_evaluating)
        self.counters.owes_evaluation = records is None
        if records is None:
            return {}
        record: dict[str, float] = {}
        for one in records:
            record |= one | {"epoch": self.epoch}
            self.recorder.write(one | {"epoch": self.epoch}, kind="eval", step=self.counters.step)
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
        self.watchdog.beat(f"step {step + 1}")
        if step % self.sampler.steps_per_epoch == 0:
            self.callbacks.call("on_epoch_begin")
        self.callbacks.begin_step()
        began = time.perf_counter()
        self._update(step)
        seconds = time.perf_counter() - began
        self.step_seconds += seconds
        self.stop.note_time("step", seconds)
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
        self._agree_on_control()
        self._log_evaluate_save()

    def _agree_on_control(self) -> None:
        """What a callback asked for on one rank is done on all, at the same step."""
        control = self.callbacks.control
        names = ("should_training_stop", "should_log", "should_evaluate", "should_save")
        for name, asked in zip(names, self.passes.ranks.agree([getattr(control, name) for name in names]), strict=True):
            setattr(control, name, bool(asked))

    def _update(self, step: int) -> None:
        """One optimizer step: gradients of all micro-batches, clip, step."""
        indices = [int(index) for index in self.sampler.groups_of(step)]
        members = [self.groups[index] for index in indices]
        self.passes.method.set_progress(step / self.total_steps)
        begun, self.begun = self.begun, None
        trained, step_sums = compute_step(self.passes, begun, indices, members)
        self.counters.learning_rate = float(self.schedule.get_last_lr()[0])
        self.callbacks.call("on_pre_optimizer_step")
        verdict = self._judge(step, step_sums, self._clip())
        self._count(members)
        if verdict.moves:
            self.sums.merge(step_sums)
            self.passes.advance(trained)
            self.optimizer.step()
            self.callbacks.call("on_optimizer_step")
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.passes.reference is not None:
            self.passes.reference.after_step(self.counters.step)
        self._stop_if_hopeless(verdict)

    def _clip(self) -> Any:
        """Scale the gradient down to the limit of its global norm, and give the norm before, on the device."""
        limit = self.settings.max_grad_norm or math.inf
        return whole(self.passes.accelerator.clip_grad_norm_(self.passes.scorer.parameters(), limit))

    def _judge(self, step: int, step_sums: MetricSums, grad_norm: Any) -> Verdict:
        """Decide on a step, the same on every rank; a loss scaler's overflows are its own business."""
        loss, norm = self.passes.loss_and_norm(step_sums.total("loss"), grad_norm)
        self.counters.grad_norm = norm
        if self.passes.accelerator.scaler is not None and math.isfinite(loss) and not math.isfinite(norm):
            norm = 0.0  # the scaler skips the step by itself and lowers its scale
        verdict = judge_step(loss, norm, self.counters.recent_losses, self.settings)
        if verdict.kind != "good":
            self._report_oddity(step, verdict, loss)
        self._note_loss(verdict, loss)
        return verdict

    def _report_oddity(self, step: int, verdict: Verdict, loss: float) -> None:
        """Say and write down what a step that is not good was, with its rows."""
        members = [self.groups[int(index)] for index in self.sampler.groups_of(step)]
        action = "the run goes on" if verdict.moves else "the run stops" if verdict.stops else "the step is skipped"
        rows = [group.row for group in members]
        warn(f"step {step + 1}: {verdict.problem}; {action} (rows {', '.join(map(str, rows))})")
        record = {
            "problem": verdict.problem, "action": action, "loss": loss, "grad_norm": self.counters.grad_norm,
            "rows": rows,
        }  # fmt: skip
        self.recorder.note(record, kind="oddity", step=step + 1)

    def _note_loss(self, verdict: Verdict, loss: float) -> None:
        counters = self.counters
        counters.loss_spikes += verdict.kind == "spike"
        if verdict.moves:
            counters.skipped_in_a_row = 0
            counters.recent_losses = [*counters.recent_losses, loss][-self.settings.loss_spike_window :]
            return
        counters.skipped_steps += 1
        counters.skipped_in_a_row += 1
        counters.skipped_since_log += 1
        counters.skipped_loss = loss

    def _stop_if_hopeless(self, verdict: Verdict) -> None:
        """End the run where going on makes no sense.

        Raises:
            NumericsError: exit code 4.
        """
        counters = self.counters
        if verdict.stops:
            raise NumericsError(
                f"step {counters.step}: {verdict.problem}, and --loss_spike stop was asked for.\n"
                "The rows are in metrics.jsonl; the last checkpoint is from before."
            )
        if counters.skipped_in_a_row >= self.settings.max_skipped_steps:
            raise NumericsError(
                f"{counters.skipped_in_a_row} steps in a row had to be skipped, the last at step {counters.step}: "
                f"{verdict.problem}.\nThe last good checkpoint stands; see the rows in metrics.jsonl, or lower "
                "--learning_rate."
            )

    def _count(self, groups: Sequence[PromptGroup]) -> None:
        counters = self.counters
        counters.step += 1
        counters.steps_since_log += 1
        counters.num_groups += len(groups)
        counters.num_tokens += sum(group.num_tokens for group in groups)
        shared = self.passes.cut.shared
        counters.num_computed_tokens += sum(one.num_tree_tokens if shared else one.num_tokens for one in groups)

    def _tell_position(self) -> None:
        state = self.callbacks.state
        state.global_step, state.epoch = self.counters.step, self.epoch
        state.num_input_tokens_seen = self.counters.num_tokens

    def _log_evaluate_save(self) -> None:
        if self.callbacks.control.should_log:
            self._log()
        if self.callbacks.control.should_evaluate:
            self.evaluate()
            self._unload_reference()
        if self.callbacks.control.should_save:
            self.save_now()

    def _evaluate_then_save(self) -> None:
        """The evaluation before the first step, or the one that a stop request interrupted."""
        self.evaluate()
        if self.callbacks.control.should_save and self.counters.step:
            self.save_now()

    def _asked_to_stop(self) -> str | None:
        """Why the run shall stop, the same on every rank."""
        reason = self.stop.reason
        if self.passes.ranks.size == 1:
            return reason
        (asked,) = self.passes.sum_over_ranks([0.0 if reason is None else 1.0])
        return (reason or "another rank was asked to") if asked else None

    def _gives_up_evaluating(self) -> bool:
        """Whether an evaluation ends early: one of several ranks has no say, for they do not count alike."""
        return self.passes.ranks.size == 1 and self.stop.reason is not None

    def _leave_if_asked(self) -> None:
        """Commit a checkpoint and end the run, where that was asked for.

        Raises:
            Preempted: exit code 75.
        """
        reason = self._asked_to_stop()
        if reason is None:
            return
        self.save_now(must_succeed=True)
        self.saving.wait()
        raise Preempted(
            f"stopped after step {self.counters.step} of {self.total_steps} ({reason}); a checkpoint is saved.\n"
            "The same command with --resume_from_checkpoint auto goes on exactly there."
        )

    def _unload_reference(self) -> None:
        """After an epoch, or the evaluation behind it, every group may be in the cache: the reference model can go."""
        reference = self.passes.reference
        if reference is None or reference.live is None or self.counters.step >= self.total_steps:
            return
        if self.passes.method.scores_other_groups or self.counters.step < self.sampler.steps_per_epoch:
            return
        self.passes.flush()
        held_out = [] if self.evaluation is None else self.evaluation.groups
        misses = not (reference.covers(self.groups) and reference.covers(held_out))
        if not any(self.passes.ranks.agree([misses])):
            reference.unload()

    def save_now(self, *, must_succeed: bool = False) -> None:
        """Write a checkpoint, unless this step has one."""
        self._settle_save()
        if self.last_saved_step == self.counters.step:
            return
        self.last_saved_step = self.counters.step
        self.passes.flush()
        began = time.perf_counter()
        self.watchdog.beat(f"the save of step {self.counters.step}")
        self.save(must_succeed)
        if not self.settings.async_save:
            self._settle_save()
        self.stop.note_time("save", time.perf_counter() - began)
        if self.last_saved_step == self.counters.step:
            self.callbacks.call("on_save")

    def _settle_save(self) -> None:
        if self.settle():
            self.last_saved_step = -1

    def _log(self) -> None:
        counters = self.counters
        means = self.passes.method.derive(self._take_means())
        self.passes.flush()
        loss = means.pop("loss")
        record: dict[str, float] = {
            "loss": loss,
            "grad_norm": counters.grad_norm,
            "learning_rate": counters.learning_rate,
            **without_health(means),
            "num_tokens": counters.num_tokens,
            "num_computed_tokens": counters.num_computed_tokens,
            "epoch": self.epoch,
            **counters.oddities(),
        }
        self.recorder.write(record, kind="train", step=counters.step)
        watch = HealthWatch(self.settings, self.passes.starts_at_reference, counters.health)
        watch.report(counters.step, means, self.recorder)

    def _log_rest(self) -> None:
        """Steps since the last record count in the summary's loss, as they do in transformers."""
        if self.counters.steps_since_log:
            self._take_means()

    def _take_means(self) -> dict[str, float]:
        """Means over the interval's steps that moved the weights; where there is none, the loss as it was.

        Skipped steps stay out of the means, so that one NaN does not hide all else; each has a record of its own.
        """
        counters = self.counters
        steps = counters.steps_since_log - counters.skipped_since_log
        means = self.sums.take_means(self.passes.ranks) if steps else {"loss": counters.skipped_loss}
        counters.loss_sum += means["loss"] * steps if steps else 0.0
        counters.loss_steps += steps
        counters.steps_since_log = counters.skipped_since_log = 0
        return means

    def _summary(self, seconds: float, first_step: int, first_groups: int) -> dict[str, float]:
        counters = self.counters
        steps = counters.step - first_step
        record: dict[str, float] = {
            "train_runtime": seconds,
            "train_samples_per_second": (counters.num_groups - first_groups) / seconds,
            "train_steps_per_second": steps / seconds,
            **({"train_loss": counters.loss_sum / counters.loss_steps} if counters.loss_steps else {}),
            "train_step_seconds": self.step_seconds,
            "epoch": self.epoch,
            **counters.oddities(),
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
