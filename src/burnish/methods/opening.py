"""What every run opens with: tokenizer, rows, device, and the policy's start on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from burnish.console import notice
from burnish.data.followers import Sets, prepare_once
from burnish.data.prepare import GroupKind, Prepared
from burnish.device.attention import check_attention, check_flex_attention
from burnish.device.launch import build_accelerator
from burnish.device.pick import Device, pick_device
from burnish.device.precision import Precision, choose_precision
from burnish.device.ranks import Ranks, join_ranks
from burnish.device.rng import seed_everything, use_deterministic_kernels
from burnish.engine.method import Method
from burnish.engine.trackers import check_trackers, tracker_options
from burnish.methods.ahead import Ahead, obstacle_to_beginning, prepare_ahead
from burnish.methods.config import global_batch_size
from burnish.methods.data import prepare_data
from burnish.methods.zero import zero_options
from burnish.models.adapters import add_adapter, gives_rewards, has_adapter, keep_start
from burnish.models.fingerprint import weights_fingerprint
from burnish.models.load import check_finite, disable_dropout, load_causal_lm
from burnish.models.tokenizer import load_tokenizer, settle_tokenizer


@dataclass(slots=True)
class Inputs:
    """What the Python API may hand over instead of names; None where settings say it."""

    model: nn.Module | None = None
    ref_model: nn.Module | None = None
    tokenizer: Any = None
    train_dataset: Any = None
    eval_dataset: Any = None
    peft_config: Any = None
    has_callbacks: bool = False
    """Whether functions of the user's are called in the course of the run."""
    ahead: Ahead | None = None
    """The process that tokenises already; None lets the session start it, where the settings ask for it."""

    def given(self) -> list[str]:
        """What of the data is here instead of in the settings."""
        names = ("tokenizer", "train_dataset", "eval_dataset")
        return [name for name in names if getattr(self, name) is not None]

    def kept(self) -> list[str]:
        """What of the run is here instead of in the settings, and could not be had a second time as it was."""
        names = ("model", "ref_model", "peft_config")
        return [name for name in names if getattr(self, name) is not None] + ["callbacks"] * self.has_callbacks


@dataclass(slots=True)
class Opened:
    """What was opened; the policy's start has neither adapter nor device yet."""

    tokenizer: Any
    ranks: Ranks
    device: Device
    precision: Precision
    accelerator: Any
    start: nn.Module
    fingerprints: dict[str, str]
    train: Prepared
    held_out: dict[str, Prepared]
    """Sets to evaluate on, by name; a single one has an empty name."""
    zero: dict[str, Any] | None
    """What DeepSpeed is given where it spreads the optimizer over ranks."""

    @property
    def stores(self) -> list[Any]:
        """The groups of all sets, those to train on first."""
        return [prepared.groups for prepared in (self.train, *self.held_out.values())]


def open_run(
    config: Any,
    inputs: Inputs,
    method: Method,
    kind: GroupKind,
    run_path: Path | None,
    *,
    begin: Callable[[Opened], None],
) -> Opened:
    """Open data before the device is touched; with --lazy_tokenise, the policy's start before the data.

    Args:
        config: settings of the method.
        inputs: what Python hands over.
        method: looks at the rows, and loads the policy.
        kind: what the method learns from.
        run_path: the run directory; None writes nothing.
        begin: with --lazy_tokenise, called with the rows that the run begins with while the others are tokenised.

    Raises:
        ConfigError, DataError: a setting or a row that no run can be made of.
    """
    check_trackers(config.report_to)
    with inputs.ahead or prepare_ahead(config, inputs.given(), kind) as ahead:
        tokenizer: Any = find_tokenizer(config, inputs)
        ranks = join_ranks()
        zero_options(config, ranks, global_batch_size(config, ranks.size))
        rejected = None if run_path is None or not ranks.is_main else run_path / "rejected_rows.jsonl"
        prepare = partial(_prepare, config, inputs, method, tokenizer, kind, rejected, ranks)
        data = None if ahead else prepare()
        device, precision = _choose_device(config)
        for name in ("model", "ref_model"):
            if getattr(inputs, name) is not None:
                check_attention(getattr(inputs, name), device, name, deterministic=config.deterministic)
        zero = zero_options(config, ranks, global_batch_size(config, ranks.size), precision)
        ranks.connect(device)
        accelerator = build_accelerator(device, precision, **tracker_options(config.report_to, run_path or Path()))
        load = partial(method.load_policy, config, pad_id=tokenizer.pad_token_id)
        start, fingerprints = load_start(config, inputs, load)
        parts = (tokenizer, ranks, device, precision, accelerator, start, fingerprints)
        front = _await_front(ahead, config, inputs) if ahead else None
        if front is not None:
            begin(Opened(*parts, front, {}, zero))
        if ahead:
            ahead.wait()
        train, held_out = data or prepare()
    return Opened(*parts, train, held_out, zero)


def _await_front(ahead: Ahead, config: Any, inputs: Inputs) -> Prepared | None:
    """The rows that the run begins with; None where the first step waits for all, which a line then says."""
    obstacle = obstacle_to_beginning(config, inputs.kept())
    if obstacle is not None:
        notice(f"--lazy_tokenise: the first step waits for all rows, since {obstacle}")
        return None
    return ahead.front()


def find_tokenizer(config: Any, inputs: Inputs) -> Any:
    """The tokenizer that was handed over, else the one beside the model, as the settings want it."""
    return load_tokenizer(config, config) if inputs.tokenizer is None else settle_tokenizer(inputs.tokenizer, config)


def load_start(config: Any, inputs: Inputs, load: Callable[[], nn.Module]) -> tuple[nn.Module, dict[str, str]]:
    """Load the policy's start on the CPU, float32, whatever the rows are.

    Returns:
        The policy, and the fingerprint of its weights.
    """
    seed_everything(config.seed)
    policy: Any = load() if inputs.model is None else inputs.model.float()
    if inputs.model is not None and has_adapter(policy) and not gives_rewards(policy):
        keep_start(policy)
    if inputs.model is not None:
        check_finite(policy, "model")
    return policy, {"base_model": weights_fingerprint(policy)}


def complete_models(
    config: Any, inputs: Inputs, policy: Any, *, needs_reference: bool
) -> tuple[nn.Module, nn.Module | None, dict[str, str]]:
    """Put the adapter on a policy's start, load its reference, and take dropout away; it goes on with the random state.

    Returns:
        The policy, a reference model where one is named, and the fingerprint of the reference's weights.
    """
    fingerprints: dict[str, str] = {}
    other = _load_other_reference(config, inputs) if needs_reference else None
    if other is not None:
        fingerprints["reference"] = weights_fingerprint(other)
    if config.disable_dropout:
        for model in (policy, other):
            if model is not None:
                disable_dropout(model)
    if config.use_peft or inputs.peft_config is not None:
        policy = add_adapter(policy, inputs.peft_config or config)
        if getattr(config, "sync_ref_model", False):
            keep_start(policy)  # a copy that can follow, instead of the adapter switched off
    if config.gradient_checkpointing:
        enable_checkpointing(policy)
    return policy, other, fingerprints


def num_embeddings(policy: Any) -> int:
    """How many tokens a model embeds."""
    return policy.get_input_embeddings().weight.shape[0]


def enable_checkpointing(policy: Any) -> None:
    """Recompute activations layer by layer; transformers calls it by two names."""
    enable = getattr(policy, "activation_checkpointing_enable", None) or policy.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _load_other_reference(config: Any, inputs: Inputs) -> nn.Module | None:
    if inputs.ref_model is not None:
        check_finite(inputs.ref_model, "ref_model")
        return inputs.ref_model.float()
    if config.ref_model_name_or_path is None:
        return None
    settings = replace(config, model_revision="main")  # the revision is the policy's
    return load_causal_lm(config.ref_model_name_or_path, settings, hub=config.hub, flag="--ref_model_name_or_path")


def _prepare(
    config: Any,
    inputs: Inputs,
    method: Method,
    tokenizer: Any,
    kind: GroupKind,
    rejected_path: Path | None,
    ranks: Ranks,
) -> Sets:
    """Prepare the rows, and let the method look at them."""
    prepare = partial(prepare_data, config, tokenizer, kind, rejected_path)
    train, held_out = prepare_once(ranks, partial(prepare, inputs.train_dataset, inputs.eval_dataset))
    method.see_data(train.groups)
    for prepared in (train, *held_out.values()):
        method.check_rows(prepared.groups)
    return train, held_out


def offloads(config: Any, device: Device) -> bool:
    """Whether the host holds what the backward pass needs: the CPU's memory is the host's already."""
    return config.activation_offloading and device.is_accelerator


def _choose_device(config: Any) -> tuple[Device, Precision]:
    """Take and set up the device, and say which it is, in which precision, and why."""
    device = pick_device(config.device, num_threads=config.num_threads, jit_compile=config.npu_jit_compile)
    check_flex_attention(config.attn_implementation, device, deterministic=config.deterministic)
    if config.deterministic:
        use_deterministic_kernels()
    precision = choose_precision(config.precision, device)
    notice(f"device: {device.reason}; precision: {precision.name} ({precision.reason})")
    if device.settings:
        notice(device.settings)
    if config.activation_offloading and not device.is_accelerator:
        notice("--activation_offloading: nothing moves, for the CPU's memory is the host's")
    return device, precision
