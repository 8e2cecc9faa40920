"""From a session to its loop, with optimizer, schedule, cadences and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from burnish.device.profiler import StepProfiler
from burnish.device.rng import forked_rng, mark_rng
from burnish.device.zero import build_zero
from burnish.engine.best import build_best_metric
from burnish.engine.cadence import build_cadence
from burnish.engine.callbacks import Callbacks
from burnish.engine.duration import parse_duration
from burnish.engine.evaluation import Evaluation, EvaluationSets
from burnish.engine.interruption import StopRequest
from burnish.engine.loop import Cadences, TrainingLoop, total_steps
from burnish.engine.memory_notes import MemoryNotes
from burnish.engine.method import Method
from burnish.engine.optimizer import build_optimizer
from burnish.engine.passes import Passes
from burnish.engine.recorder import Recorder
from burnish.engine.run_dir import RunDir
from burnish.engine.schedule import build_schedule
from burnish.engine.watchdog import Watchdog
from burnish.errors import ConfigError
from burnish.methods.session import Session


def resolve_settings(args: Any, session: Session) -> None:
    """Put what was chosen into the settings, so that run.yaml says it and a resumed run chooses alike.

    Raises:
        ConfigError: evaluations are asked for, and there is nothing to evaluate on.
    """
    args.max_tokens_per_micro_batch = session.cut.max_tokens
    args.global_batch_size = session.sampler.batch_size
    if args.eval_strategy is None:
        args.eval_strategy = "steps" if session.held_out else "no"
    if args.metric_for_best_model is None and (args.load_best_model_at_end or set(session.held_out) - {""}):
        first = next(iter(session.held_out), "")
        args.metric_for_best_model = f"{first}_loss" if first else "loss"
    best = build_best_metric(args.metric_for_best_model, args.greater_is_better, keeps_checkpoint=False)
    args.greater_is_better = best.greater_is_better
    if args.eval_strategy != "no" and not session.held_out:
        raise ConfigError(
            f"--eval_strategy {args.eval_strategy}: there are no evaluation rows. Give --eval_dataset_name."
        )
    if args.eval_strategy == "no" and (args.load_best_model_at_end or args.save_strategy == "best"):
        raise ConfigError("--load_best_model_at_end and --save_strategy best need evaluation rows and steps.")


def build_loop(
    args: Any,
    session: Session,
    method: Method,
    *,
    user_callbacks: Sequence[Any],
    run_dir: RunDir | None,
    save: Callable[[bool], None],
    settle: Callable[[], bool],
    started: float,
) -> TrainingLoop:
    """Build the loop that stands before its first step.

    Args:
        args: resolved settings.
        session: the run's parts.
        method: gives losses.
        user_callbacks: transformers' callbacks.
        run_dir: where records go; None prints them only.
        save: writes a checkpoint of this loop.
        settle: says whether the last one was lost.
        started: when the clock of --max_time began, by time.monotonic().
    """
    steps = total_steps(args, session.sampler)
    adamw = build_optimizer(session.model, args, device=session.device, precision=session.precision)
    schedule = build_schedule(adamw, args, steps)
    stepping, optimizer = _spread_optimizer(args, session, adamw)
    run_path = None if run_dir is None else run_dir.path
    callbacks = _build_callbacks(args, session, user_callbacks, run_path, optimizer=optimizer, lr_scheduler=schedule)
    passes = build_passes(session, method, stepping)
    recorder = Recorder(run_dir=run_dir, callbacks=callbacks, accelerator=session.accelerator)
    passes.when_smaller = MemoryNotes(args, passes, recorder)
    watchdog = Watchdog(None if args.hang_timeout is None else parse_duration(args.hang_timeout), session.ranks)
    passes.beat = watchdog.beat
    return TrainingLoop(
        settings=args,
        passes=passes,
        optimizer=optimizer,
        schedule=schedule,
        sampler=session.sampler,
        groups=session.train.groups,
        total_steps=steps,
        cadences=_build_cadences(args, steps, session.sampler.steps_per_epoch),
        evaluation=_build_evaluation(args, session),
        callbacks=callbacks,
        recorder=recorder,
        best=build_best_metric(
            args.metric_for_best_model,
            args.greater_is_better,
            keeps_checkpoint=args.load_best_model_at_end or args.save_strategy == "best",
        ),
        save=save,
        settle=settle,
        watchdog=watchdog,
        begun=session.begun,
        stop=StopRequest(None if args.max_time is None else parse_duration(args.max_time), started),
    )


def _build_callbacks(
    args: Any, session: Session, user_callbacks: Sequence[Any], run_path: Path | None, **parts: Any
) -> Callbacks:
    if args.profile:
        from burnish.engine.profiling import ProfileSteps

        folder = run_path or Path(args.output_dir or ".")
        user_callbacks = [*user_callbacks, ProfileSteps(StepProfiler(session.device, folder / "profile", args.profile))]
    objects = {"model": session.model, "processing_class": session.tokenizer, **parts}
    callbacks = Callbacks(user_callbacks, args=args, objects=objects)
    callbacks.call("on_init_end")
    return callbacks


def _spread_optimizer(args: Any, session: Session, adamw: Any) -> tuple[Any, Any]:
    """What a step asks for gradients, and the optimizer: accelerate's, or those of DeepSpeed's ZeRO."""
    if session.zero is None:
        return session.accelerator, session.accelerator.prepare_optimizer(adamw)
    return build_zero(
        session.scorer,
        adamw,
        session.zero,
        accelerator=session.accelerator,
        max_grad_norm=args.max_grad_norm,
    )


def build_passes(session: Session, method: Method, stepping: Any) -> Passes:
    """What computes the run's steps.

    Args:
        session: the run's parts.
        method: gives losses.
        stepping: accelerate's Accelerator, or what stands in for it where DeepSpeed spreads the optimizer.
    """
    return Passes(
        method=method,
        scorer=session.scorer,
        reference=session.reference,
        accelerator=stepping,
        device=session.device.torch_device,
        cut=session.cut,
        router_coefficient=session.router_coefficient,
        forked_rng=partial(forked_rng, session.device),
        mark_rng=partial(mark_rng, session.device),
        ranks=session.ranks,
    )


def _build_cadences(args: Any, steps: int, steps_per_epoch: int) -> Cadences:
    per_epoch = {"total_steps": steps, "steps_per_epoch": steps_per_epoch}
    return Cadences(
        log=build_cadence(args.logging_strategy, args.logging_steps, **per_epoch),
        evaluate=build_cadence(args.eval_strategy, args.eval_steps, **per_epoch),
        save=build_cadence(args.save_strategy, args.save_steps, **per_epoch),
    )


def _build_evaluation(args: Any, session: Session) -> EvaluationSets | None:
    size = args.per_device_eval_batch_size
    sets = [Evaluation(one.groups, batch_size=size, name=name) for name, one in session.held_out.items()]
    return EvaluationSets(sets) if sets else None
