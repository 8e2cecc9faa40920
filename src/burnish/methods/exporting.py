"""From one checkpoint of a run to an ordinary model folder, without training or touching the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from burnish.console import notice, warn
from burnish.engine.checkpoint import CheckpointState, find_checkpoints, load_checkpoint, pick_checkpoint
from burnish.engine.run_dir import RunDir
from burnish.engine.snapshot import trainable_tensors
from burnish.engine.tensor_files import copy_tensors
from burnish.errors import ConfigError, IntegrityError
from burnish.methods.describe import changed_settings, last_metrics
from burnish.methods.opening import Inputs, complete_models, load_start
from burnish.methods.trainer import Trainer
from burnish.models.adapters import has_adapter
from burnish.models.card import model_card
from burnish.models.export import export_model
from burnish.models.tokenizer import load_tokenizer, stop_at_end_of_text

_READ = "model"
"""The one group of tensors that a model is made of; optimizer and random states stay unread."""
_SHOWN_STEPS = 12


def export_checkpoint(run: Path, step: int | None, out: Path, trainer_type_of: Callable[[str], type[Trainer]]) -> int:
    """Write the model, or the adapter, of one checkpoint with tokenizer, template and card to a new folder.

    Every file of the checkpoint is verified first. The base model is read from where the run's settings name it.

    Args:
        run: a run directory.
        step: of the checkpoint; None takes the newest good one.
        out: the folder to write; it must not exist.
        trainer_type_of: the trainer of a command, by its name.

    Returns:
        The step that was exported.

    Raises:
        ConfigError: no such run or step, `out` exists, or the run was given its model in Python.
        IntegrityError: the checkpoint is damaged, or its base is another one than the run's.
        ModelError: the base model is not found or not whole.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new folder")
    state = _read_checkpoint(run, step)
    name = state.counters.get("method")
    if not isinstance(name, str):
        raise ConfigError(f"{state.path} does not say which command wrote it (an earlier version of burnish did)")
    config = _read_settings(state, trainer_type_of(name).config_type)
    trainer = trainer_type_of(name)(args=config)
    tokenizer: Any = load_tokenizer(config, config)
    load = partial(trainer.method.load_policy, config, pad_id=tokenizer.pad_token_id)
    start, fingerprints = load_start(config, Inputs(), load)
    model, *_ = complete_models(config, Inputs(), start, needs_reference=False)
    if config.eos_token is not None:
        stop_at_end_of_text(model, tokenizer)
    _put_weights(state, model, fingerprints["base_model"])
    card = model_card(
        base_model=config.model_name_or_path,
        method=name,
        settings=changed_settings(config),
        data={"dataset": config.dataset_name, "checkpoint": f"step {state.step}"},
        metrics=last_metrics(state.counters.get("log_history", [])),
        adapter=has_adapter(model),
    )
    export_model(model, tokenizer, out, card=card)
    return state.step


def _read_checkpoint(run: Path, step: int | None) -> CheckpointState:
    """Verify and read one checkpoint; of several of a step, the newest that is good."""
    if not run.is_dir():
        raise ConfigError(f"there is no run {run}; give a run's --output_dir")
    if step is None:
        state = pick_checkpoint(RunDir(run), wanted=lambda group: group == _READ)
        if state is None:
            raise ConfigError(f"{run} holds no checkpoint; `burnish checkpoints {run}` lists what is there")
        return state
    found = find_checkpoints(run)
    of_step = [one for one in found if one.step == step]
    if not of_step:
        steps = ", ".join(str(one.step) for one in found[-_SHOWN_STEPS:] if one.step >= 0) or "none"
        raise ConfigError(f"{run} has no checkpoint of step {step}; there are: {steps}")
    for one in reversed(of_step[1:]):
        try:
            return _warn_if_unhealthy(load_checkpoint(one.path, wanted=lambda group: group == _READ))
        except IntegrityError as error:
            warn(f"checkpoint {one.path.name} is not used: {error}")
    return _warn_if_unhealthy(load_checkpoint(of_step[0].path, wanted=lambda group: group == _READ))


def _warn_if_unhealthy(state: CheckpointState) -> CheckpointState:
    if not state.healthy:
        warn(f"{state.path} was written after a non-finite step; its weights may be worthless")
    return state


def _read_settings(state: CheckpointState, config_type: type[Any]) -> Any:
    """The run's settings as the checkpoint keeps them; those of another version of burnish are left out, and said."""
    known = {field.name for field in fields(config_type)}
    unknown = sorted(set(state.settings) - known)
    if unknown:
        notice(f"settings that this version does not have: {', '.join(unknown)}")
    config = config_type(**{name: value for name, value in state.settings.items() if name in known})
    if config.model_name_or_path is None:
        raise ConfigError(
            f"{state.path}: the run was given its model in Python, so no setting names its base; "
            "resume it there, and call save_model(folder)"
        )
    return config


def _put_weights(state: CheckpointState, model: Any, base: str) -> None:
    named, saved = trainable_tensors(model), state.tensors[_READ]
    if set(named) != set(saved):
        raise ConfigError(
            f"{state.path} holds {len(saved)} tensors, and the run's settings make a model with {len(named)} to train: "
            "the run was given model or adapter in Python; resume it there, and call save_model(folder)"
        )
    copy_tensors(saved, named, what="model")
    is_partial = len(named) < len(dict(model.named_parameters()))
    if is_partial and state.fingerprints.get("base_model", base) != base:
        raise IntegrityError(
            f"{getattr(model, 'name_or_path', 'the base model')} has changed since the run began: the weights in "
            f"{state.path} were trained on another base; put the base back as it was"
        )
