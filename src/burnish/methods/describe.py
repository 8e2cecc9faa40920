"""The plan of a run in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from burnish.device.memory import total_memory_bytes
from burnish.engine.loop import total_steps
from burnish.engine.method import Method
from burnish.engine.plan import RunPlan, format_bytes
from burnish.methods.budget import choose_budget
from burnish.methods.opening import offloads
from burnish.methods.reference import reference_dtype
from burnish.methods.session import Session
from burnish.models.estimate import count_parameters
from burnish.models.given_reference import GivenReference
from burnish.models.moving_reference import MovingReference
from burnish.models.reference import AdapterOffReference, FrozenReference
from burnish.models.sharing import share_memory


def describe_run(session: Session, method: Method, config: Any) -> RunPlan:
    """Derive the plan from a prepared session."""
    groups = session.train.groups
    steps = total_steps(config, session.sampler)
    first = [int(index) for index in session.sampler.groups_of(0)]
    first_plan = session.cut.plan(first, [groups[index] for index in first])
    lengths = groups.tree_lengths if session.cut.shared else groups.num_tokens
    counts = count_parameters(session.model)
    sizes = [f"{len(one.groups):,} held out{name and f' ({name})'}" for name, one in session.held_out.items()]
    held_out = "".join(f"; {count}" for count in sizes)
    share = "shared prompts" if session.cut.shared and groups.max_completions > 1 else "one completion a row"
    share += ", packed without padding" if session.cut.packed else ""
    share = share if session.cut.row_tokens is None else f"rows of up to {session.cut.row_tokens:,} tokens, filled"
    memory = share_memory(
        session.model,
        devices=session.ranks.size,
        parallel=config.parallel,
        tokens=session.cut.max_tokens,
        row_tokens=min(int(lengths.max()), session.cut.max_tokens),
        reference_dtype=reference_dtype(config),
        compute_dtype=session.precision.dtype,
        has_frozen_reference=session.reference is not None and isinstance(session.reference.live, FrozenReference),
        holds_activations=not offloads(config, session.device),
    ).as_dict()
    return RunPlan(
        title=f"burnish {method.name}: the plan",
        device=session.device.reason,
        precision=f"{session.precision.name} compute over float32 weights ({session.precision.reason})",
        policy=str(config.model_name_or_path or "given model"),
        reference=_describe_reference(session, config),
        objective=method.describe() + _balancing_in_words(session),
        data=session.train.report.one_line() + held_out,
        tokens=(
            f"{int(groups.num_tokens.sum()):,} with the prompt once a completion, {int(lengths.sum()):,} computed; "
            f"longest row {int(lengths.max()):,}"
        ),
        steps=(
            f"{steps:,} of {session.sampler.batch_size} groups, {session.sampler.steps_per_epoch:,} an epoch; "
            f"{config.lr_scheduler_type} from {config.learning_rate:g}"
        ),
        cut=(
            f"{len(first_plan.micro_batches)} in the first step, at most {session.cut.max_tokens:,} tokens each "
            f"({choose_budget(config, session).reason}); {share} ({session.scoring.reason})"
        ),
        activations=_activations_in_words(config, memory["total"], session),
        parameters=f"{counts.trainable:,} trained of {counts.total:,}",
        memory=memory,
        devices=session.ranks.size,
    )


def _activations_in_words(config: Any, estimated_bytes: float, session: Session) -> str:
    """Whether activations are kept, and whether the device has room for them."""
    offloaded = "held in the host's memory until then (--activation_offloading)"
    is_offloaded = offloads(config, session.device)
    if config.gradient_checkpointing:
        told = "recomputed in the backward pass (--gradient_checkpointing)"
        return f"{told}; what it starts from is {offloaded}" if is_offloaded else told
    if is_offloaded:
        return f"kept for the backward pass, {offloaded}"
    room = total_memory_bytes(session.device)
    if estimated_bytes <= room:
        return f"kept: the estimate below is within the {format_bytes(room)} of the device"
    return f"kept, but the estimate below is above the {format_bytes(room)} of the device: add --gradient_checkpointing"


def _balancing_in_words(session: Session) -> str:
    if not session.router_coefficient:
        return ""
    cost = "one more policy forward where a step has several micro-batches"
    return f"; {session.router_coefficient:g} x balancing of the experts over the step ({cost})"


def _describe_reference(session: Session, config: Any) -> str:
    told = _start_in_words(session, config)
    if isinstance(session.reference, MovingReference):
        told += f"; moves every {session.reference.every} steps (alpha {session.reference.alpha:g}) and stays in memory"
    return told


def _start_in_words(session: Session, config: Any) -> str:
    if session.reference is None:
        return "none: the objective does not use one"
    if isinstance(session.reference, GivenReference):
        return "none loaded: the rows bring ref_chosen_logps and ref_rejected_logps"
    if config.ref_model_name_or_path:
        return str(config.ref_model_name_or_path)
    if isinstance(session.reference.live, AdapterOffReference):
        return "the model with the adapter switched off"
    if session.reference.live is None:
        return "the policy's start, from the cache"
    return "a frozen copy of the policy's start"


def changed_settings(args: Any) -> dict[str, Any]:
    """The settings that differ from their defaults."""
    default = asdict(type(args)())
    return {name: value for name, value in asdict(args).items() if value != default[name]}


def last_metrics(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The last value of every metric in a run's records."""
    return {name: value for record in history for name, value in record.items() if name != "step"}


def default_output_dir(method: str, model: str | None) -> str:
    """runs/<method>-<model>-<date>."""
    name = Path(model).name if model else "model"
    return f"runs/{method}-{name}-{datetime.now():%Y%m%d-%H%M%S}"
