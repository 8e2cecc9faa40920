"""A dry run for devices that are not here: how much memory each needs, whether it has it, and what would help.

Rows are prepared as for training; of the model only its config is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.data.prepare import GroupKind, Prepared
from burnish.engine.method import Method
from burnish.engine.plan import describe_memory, format_bytes
from burnish.engine.sizes import parse_size
from burnish.engine.zero_settings import read_zero
from burnish.methods.data import prepare_data
from burnish.methods.opening import Inputs, enable_checkpointing, find_tokenizer
from burnish.methods.reference import has_given_reference
from burnish.models.estimate import count_parameters
from burnish.models.fit import USABLE, Fitting, PaperRun, Setup, fewest_devices, find_setups, most_tokens
from burnish.models.paper import find_config_folder, sketch_model, sketch_policy
from burnish.models.sharing import Zero
from burnish.scoring.architecture import describe_architecture
from burnish.scoring.scorer import unwrap_adapter

ASSUMED_BYTES = 64 * 2**30
"""Of each device where only their number is given: bounds the micro-batch, and nothing is said to fit."""
SHOWN_SETUPS = 3


@dataclass(frozen=True, slots=True)
class SizePlan:
    """What each device would hold, and the settings that fit."""

    title: str
    facts: dict[str, str]

    def lines(self, *, brief: bool = False) -> list[str]:
        """The plan as aligned lines of text, the same whether brief or not."""
        width = max(map(len, self.facts))
        return [self.title, *(f"  {name:<{width}}  {text}" for name, text in self.facts.items())]


def plan_devices(config: Any, inputs: Inputs, method: Method, kind: GroupKind) -> SizePlan:
    """Size a run for --devices of --device_memory each, without touching a device or reading a weight.

    Raises:
        ConfigError, DataError, ModelError, HubError: as a run that prepares data and loads its model.
    """
    folder = find_config_folder(config, hub=config.hub)
    rows, told, given = _look_at_rows(config, inputs, method, kind, folder)
    run = _paper_run(config, method, folder, rows, is_given=given)
    setup = _setup_of(config, run)
    model = run.build(setup)
    counts = count_parameters(model)
    facts = {
        "policy": f"{config.model_name_or_path} ({type(unwrap_adapter(model)).__name__}); config only, no weights read",
        "parameters": f"{counts.trainable:,} trained of {counts.total:,}",
        "precision": f"{setup.precision} compute over float32 weights",
        "parallel": _spread_in_words(setup, run.devices),
        "rows": told,
    }
    if config.device_memory is None:
        tokens = config.max_tokens_per_micro_batch or min(max(run.row_tokens, 1024), most_tokens(run.memory))
        told = describe_memory(run.estimate(setup, tokens).as_dict())
        facts["memory"] = f"{told} a device, with micro-batches of {tokens:,} tokens (estimated)"
        return SizePlan(f"burnish {method.name}: memory of {_devices(run)}, on paper", facts)
    title = f"burnish {method.name}: {_devices(run)} of {format_bytes(run.memory)}, on paper"
    facts["room"] = f"{format_bytes(run.usable)} a device; {1 - USABLE:.0%} is left to driver, allocator and buffers"
    return SizePlan(title, facts | _verdict(config, run, setup))


def _spread_in_words(setup: Setup, devices: int) -> str:
    if devices == 1:
        return "one device"
    return f"{setup.parallel if setup.zero is None else f'DeepSpeed ZeRO-{setup.zero.stage}'}, {devices} devices"


def _verdict(config: Any, run: PaperRun, setup: Setup) -> dict[str, str]:
    """Whether the run fits as it is, and what makes it fit."""
    asked = config.max_tokens_per_micro_batch
    as_given = run.fitting(setup) if asked is None else _with_budget(run, setup, max(asked, run.row_tokens))
    if as_given is not None:
        return {"memory": f"{describe_memory(as_given.estimate.as_dict())} a device (estimated)", "verdict": (
            f"it fits: {_in_words(as_given)}"
        )}  # fmt: skip
    tokens = run.row_tokens if asked is None else max(asked, run.row_tokens)
    least = run.estimate(setup, tokens)
    facts = {
        "memory": f"{describe_memory(least.as_dict())} a device, with micro-batches of {tokens:,} tokens (estimated)",
        "verdict": f"it does not fit: {format_bytes(least.total - run.usable)} too much a device",
    }
    setups = find_setups(run, setup)
    for number, fitting in enumerate(setups[:SHOWN_SETUPS]):
        flags = f"{fitting.setup.flags_beside(setup)} --max_tokens_per_micro_batch {fitting.max_tokens}".strip()
        facts["fits with" if number == 0 else f"or with{' ' * number}"] = (
            f"{flags} ({format_bytes(fitting.estimate.total)} a device)"
        )
    if not any(fitting.setup.use_peft == setup.use_peft for fitting in setups):
        more = fewest_devices(run, setup)
        if more is not None:
            facts["or on"] = f"{more[0]} such devices with {more[1].flags_beside(setup)}"
        elif not setups:
            facts["or on"] = "devices with more memory: nothing here makes it fit"
    return facts


def _with_budget(run: PaperRun, setup: Setup, tokens: int) -> Fitting | None:
    estimate = run.estimate(setup, tokens)
    return Fitting(setup, tokens, estimate) if estimate.total <= run.usable else None


def _in_words(fitting: Fitting) -> str:
    size = format_bytes(fitting.estimate.total)
    return f"{size} a device, with micro-batches of at most {fitting.max_tokens:,} tokens"


def _devices(run: PaperRun) -> str:
    return "1 device" if run.devices == 1 else f"{run.devices} devices"


def _look_at_rows(config: Any, inputs: Inputs, method: Method, kind: GroupKind, folder: Path) -> tuple[int, str, bool]:
    """Tokens of the longest row, the rows in words, and whether they bring what a reference would say."""
    if config.dataset_name is None and inputs.train_dataset is None:
        longest = config.max_length or 1024
        return longest, f"no data given: the longest is taken to have {longest:,} tokens (--max_length)", False
    local = replace(config, model_name_or_path=str(folder))
    tokenizer = find_tokenizer(local, inputs)
    train, held_out = prepare_data(config, tokenizer, kind, None, inputs.train_dataset, inputs.eval_dataset)
    method.check_rows(train.groups)
    longest = _longest(train, shares=not _is_unshareable(folder, config, method))
    stores = [prepared.groups for prepared in (train, *held_out.values())]
    told = f"{train.report.one_line()}; the longest has {longest:,} tokens"
    return longest, told, has_given_reference(config, method, stores)


def _longest(train: Prepared, *, shares: bool) -> int:
    return int((train.groups.tree_lengths if shares else train.groups.num_tokens).max())


def _is_unshareable(folder: Path, config: Any, method: Method) -> bool:
    model = sketch_policy(folder, config, hub=config.hub, use_peft=False, has_reward_head=method.name == "reward")
    return bool(describe_architecture(unwrap_adapter(model)).unshareable)


def _paper_run(config: Any, method: Method, folder: Path, row_tokens: int, *, is_given: bool) -> PaperRun:
    other = getattr(config, "ref_model_name_or_path", None) if method.needs_reference else None
    moves = getattr(config, "sync_ref_model", False)
    return PaperRun(
        build=_builder(partial(sketch_policy, folder, config, hub=config.hub, has_reward_head=method.name == "reward")),
        devices=config.devices or 1,
        memory=ASSUMED_BYTES if config.device_memory is None else parse_size(config.device_memory),
        row_tokens=row_tokens,
        needs_reference=method.needs_reference and not is_given,
        reference_weights=None if other is None else _weights_of(other, config),
        reference_dtype=getattr(torch, getattr(config, "ref_dtype", None) or "float32"),
        can_precompute=not (moves or method.scores_other_groups) and hasattr(config, "precompute_ref_log_probs"),
    )


def _weights_of(name: str, config: Any) -> int:
    folder = find_config_folder(replace(config, model_name_or_path=name, model_revision="main"), hub=config.hub)
    return count_parameters(sketch_model(folder, config)).total


def _setup_of(config: Any, run: PaperRun) -> Setup:
    """The settings as they are; precision auto is what accelerators have, bf16."""
    return Setup(
        precision="bf16" if config.precision == "auto" else config.precision,
        gradient_checkpointing=config.gradient_checkpointing,
        parallel=config.parallel,
        use_peft=config.use_peft or hasattr(run.build(Setup()), "peft_config"),
        precompute_ref_log_probs=getattr(config, "precompute_ref_log_probs", False),
        activation_offloading=config.activation_offloading,
        zero=None if config.deepspeed is None else Zero.of_options(read_zero(config.deepspeed)["zero_optimization"]),
    )


def _builder(sketch: Callable[..., nn.Module]) -> Callable[[Setup], nn.Module]:
    """Builds the model of a setup, each kind once."""

    @cache
    def build(use_peft: bool, gradient_checkpointing: bool) -> nn.Module:
        model = sketch(use_peft=use_peft)
        if gradient_checkpointing:
            enable_checkpointing(model)
        return model

    return lambda setup: build(setup.use_peft, setup.gradient_checkpointing)
