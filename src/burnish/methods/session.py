"""From settings to everything a loop needs: tokenizer, groups, policy, reference, and how rows are cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.batching.sampler import StepSampler
from burnish.console import notice
from burnish.data.followers import Sets, prepare_once
from burnish.data.prepare import GroupKind, Prepared
from burnish.device.fused.fuse import fuse_operators
from burnish.device.launch import build_accelerator
from burnish.device.memory import keep_freed_memory
from burnish.device.offloading import HostMemory
from burnish.device.pick import Device, pick_device
from burnish.device.precision import Precision, choose_precision
from burnish.device.ranks import Ranks, join_ranks
from burnish.device.rng import forked_rng, seed_everything, use_deterministic_kernels
from burnish.device.sharding import shard_module
from burnish.engine.cut import Cut
from burnish.engine.method import Method
from burnish.engine.trackers import check_trackers, tracker_options
from burnish.errors import ConfigError
from burnish.methods.ahead import Ahead, prepare_ahead
from burnish.methods.budget import build_cut
from burnish.methods.data import prepare_data
from burnish.methods.default_budget import RunShapes, default_max_tokens
from burnish.methods.learnable import check_learnable
from burnish.methods.reference import build_reference, has_given_reference
from burnish.methods.zero import zero_options
from burnish.models.adapters import add_adapter, gives_rewards, has_adapter, keep_start
from burnish.models.cached_reference import CachedReference
from burnish.models.cpu_layers import speed_up_layers
from burnish.models.fingerprint import weights_fingerprint
from burnish.models.given_reference import GivenReference
from burnish.models.load import check_finite, disable_dropout, load_causal_lm
from burnish.models.reference import FrozenReference
from burnish.models.tokenizer import check_vocabulary, load_tokenizer, settle_tokenizer, stop_at_end_of_text
from burnish.scoring.architecture import layers_of
from burnish.scoring.routing import own_router_coefficient
from burnish.scoring.scorer import Scorer, unwrap_adapter
from burnish.scoring.self_check import ScoringChoice, choose_scoring


@dataclass(slots=True)
class Inputs:
    """What the Python API may hand over instead of names; None where settings say it."""

    model: nn.Module | None = None
    ref_model: nn.Module | None = None
    tokenizer: Any = None
    train_dataset: Any = None
    eval_dataset: Any = None
    peft_config: Any = None
    ahead: Ahead | None = None
    """The process that tokenises already; None lets the session start it, where the settings ask for it."""

    def given(self) -> list[str]:
        """What of the data is here instead of in the settings."""
        names = ("tokenizer", "train_dataset", "eval_dataset")
        return [name for name in names if getattr(self, name) is not None]


@dataclass(slots=True)
class Session:
    """The parts of one run, ready to train or to evaluate."""

    device: Device
    precision: Precision
    tokenizer: Any
    train: Prepared
    held_out: dict[str, Prepared]
    """Sets to evaluate on, by name; a single one has an empty name."""
    model: nn.Module
    scorer: Any
    """The policy's Scorer, wrapped for the device."""
    reference: CachedReference | None
    accelerator: Any
    sampler: StepSampler
    scoring: ScoringChoice
    cut: Cut
    ranks: Ranks
    fingerprints: dict[str, str] = field(default_factory=dict)
    asked_tokens: int | None = None
    """Budget of a micro-batch that the settings named; None where it was chosen."""
    router_coefficient: float = 0.0
    """Weight of the balancing loss of a mixture-of-experts model."""
    zero: dict[str, Any] | None = None
    """What DeepSpeed is given where it spreads the optimizer over ranks."""


def global_batch_size(config: Any, num_ranks: int = 1) -> int:
    """Groups of an optimizer step over all ranks."""
    if config.global_batch_size is not None:
        return config.global_batch_size
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * num_ranks


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


def build_session(config: Any, inputs: Inputs, method: Method, kind: GroupKind, run_path: Path | None) -> Session:
    """Build all parts, data before the device is touched; with --lazy_tokenise, the policy's start before the data."""
    check_trackers(config.report_to)
    with inputs.ahead or prepare_ahead(config, inputs.given(), kind) as ahead:
        tokenizer: Any = find_tokenizer(config, inputs)
        ranks = join_ranks()
        zero_options(config, ranks, global_batch_size(config, ranks.size))
        rejected = None if run_path is None or not ranks.is_main else run_path / "rejected_rows.jsonl"
        prepare = partial(_prepare, config, inputs, method, tokenizer, kind, rejected, ranks)
        data = None if ahead else prepare()
        device, precision = _choose_device(config)
        zero = zero_options(config, ranks, global_batch_size(config, ranks.size), precision)
        ranks.connect(device)
        accelerator = build_accelerator(device, precision, **tracker_options(config.report_to, run_path or Path()))
        load = partial(method.load_policy, config, pad_id=tokenizer.pad_token_id)
        start, fingerprints = load_start(config, inputs, load)
        if ahead:
            ahead.wait()
        train, held_out = data or prepare()
    stores = [prepared.groups for prepared in (train, *held_out.values())]
    is_given = has_given_reference(config, method, stores)
    loads_reference = method.needs_reference and not is_given
    policy, other, more = complete_models(config, inputs, start, needs_reference=loads_reference)
    fingerprints |= more
    if config.eos_token is not None:
        stop_at_end_of_text(policy, tokenizer)
    for groups in stores:
        check_vocabulary(groups.highest_id, num_embeddings(policy), tokenizer)
    check_equal_on_all_ranks(ranks, {"data": train.groups.fingerprint, **fingerprints})
    check_learnable(config, policy, train.groups)
    is_spread = config.parallel == "fsdp" and ranks.size > 1
    if not is_spread:  # what may be larger than a device is checked on the host, and goes there in slices
        policy.to(device.torch_device)
    fused = _fuse(config, device, policy, other)
    has_fast_layers = config.fused_layers and not device.is_accelerator and _speed_up(policy, other)
    scorer = method.build_scorer(policy, token_metrics=config.token_metrics)
    if offloads(config, device):
        scorer.keeping = HostMemory(policy)
    sampler = _build_sampler(config, len(train.groups), ranks)
    scoring = _choose_scoring(config, scorer, train, sampler, tokenizer.pad_token_id, device)
    scorer.head_path = scoring.head_path
    router_coefficient = _router_coefficient(config, policy)
    scorer.sums_routing = router_coefficient > 0
    reference = GivenReference() if is_given else None
    if loads_reference:
        known = None if method.scores_other_groups else itertools.chain(*stores)
        identity = {"weights": fingerprints.get("reference", fingerprints["base_model"]), "device": device.kind}
        identity |= _kernels(scoring.packed, fused, has_fast_layers, precision)
        identity |= {"last_layer": "counted"} if scorer.trims_last_layer else {}
        reference = build_reference(config, scorer, other, known, identity, ranks)
    if is_spread:
        scoring = replace(scoring, packed=scoring.packed and not device.is_accelerator)
        _spread(scorer, reference, device, ranks, precision.dtype)
    lengths = train.groups.tree_lengths if scoring.shared else train.groups.num_tokens
    held = isinstance(getattr(reference, "live", None), FrozenReference)
    shapes = RunShapes(policy, int(lengths.max()), precision.dtype, has_frozen_reference=held)
    budget = config.max_tokens_per_micro_batch or default_max_tokens(config, device, shapes, ranks)
    if ranks.rank:
        seed_everything(config.seed + ranks.rank)  # weights are made; from here on, each rank draws its own dropout
    return Session(
        device=device,
        precision=precision,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        model=policy,
        scorer=scorer if is_spread or zero else accelerator.prepare_model(scorer),
        reference=reference,
        accelerator=accelerator,
        sampler=sampler,
        scoring=scoring,
        cut=build_cut(config, scoring, tokenizer.pad_token_id, budget),
        ranks=ranks,
        fingerprints=fingerprints,
        asked_tokens=config.max_tokens_per_micro_batch,
        router_coefficient=router_coefficient,
        zero=zero,
    )


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
    if config.deterministic:
        use_deterministic_kernels()
    precision = choose_precision(config.precision, device)
    notice(f"device: {device.reason}; precision: {precision.name} ({precision.reason})")
    if device.settings:
        notice(device.settings)
    if config.activation_offloading and not device.is_accelerator:
        notice("--activation_offloading: nothing moves, for the CPU's memory is the host's")
    return device, precision


def _build_sampler(config: Any, num_groups: int, ranks: Ranks) -> StepSampler:
    """The order of the groups, and how many make a step."""
    batch_size = global_batch_size(config, ranks.size)
    return StepSampler(num_groups, batch_size, config.seed, config.train_sampling_strategy)


def _spread(scorer: Scorer, reference: Any, device: Device, ranks: Ranks, compute_dtype: torch.dtype) -> None:
    """Spread policy and reference over all ranks."""
    spread = partial(shard_module, device=device, ranks=ranks, compute_dtype=compute_dtype)
    spread(scorer, layers_of(scorer.model))
    live = getattr(reference, "live", None)
    if isinstance(live, FrozenReference):
        spread(live.scorer, layers_of(live.scorer.model))
    if live is not None:
        reference.scores_together = ranks
    notice(f"parallel: weights, gradients and optimizer state are spread over {ranks.size} ranks (FSDP2)")


def _router_coefficient(config: Any, policy: nn.Module) -> float:
    """Weight of the balancing loss: the setting, else the model's own; 0 for a model without routers.

    Raises:
        ConfigError: a weight is given, and there is nothing to balance.
    """
    given = getattr(config, "router_aux_loss_coef", 0.0)
    own = own_router_coefficient(unwrap_adapter(policy))
    if own is None and given:
        model_type = getattr(policy.config, "model_type", type(policy).__name__)
        raise ConfigError(
            f"--router_aux_loss_coef {given:g} is for mixture-of-experts models, and {model_type} is none: leave it out"
        )
    return (own or 0.0) if given is None else given


def _kernels(is_packed: bool, fused: Sequence[str], has_fast_layers: bool, precision: Precision) -> dict[str, str]:
    """By which kernels log-probabilities came about: other ones round them otherwise, so a cache keeps them apart."""
    told = {
        "precision": precision.name,
        "rows": is_packed and "packed",
        "fused": " ".join(fused),
        "layers": has_fast_layers and "fused",
    }
    if is_packed and precision.name != "fp32":
        told["attention_products"] = "float32"
    if has_fast_layers and precision.name != "fp32":
        told["layers"] = f"fused, {precision.name}"
    return {name: value for name, value in told.items() if value}


def _fuse(config: Any, device: Device, policy: nn.Module, other: nn.Module | None) -> list[str]:
    """Give policy and reference the device's fused operators, and say which."""
    fused = fuse_operators(unwrap_adapter(policy), device, config.fused_operators)
    if other is not None:
        fuse_operators(unwrap_adapter(other), device, config.fused_operators)
    if fused:
        notice(f"fused operators: {', '.join(fused)} (--fused_operators none turns them off)")
    return fused


def check_equal_on_all_ranks(ranks: Ranks, fingerprints: Mapping[str, str]) -> None:
    """Refuse ranks that hold other data or weights: machines with folders of their own, of which one is stale.

    Raises:
        ConfigError: names what differs, and where.
    """
    for rank, other in enumerate(ranks.gather(dict(fingerprints))):
        for name in fingerprints:
            if other[name] != fingerprints[name]:
                raise ConfigError(
                    f"rank {rank} has another {name.replace('_', ' ')} than rank {ranks.rank}: {other[name][:12]} and "
                    f"{fingerprints[name][:12]}.\nGive all machines the same files."
                )


def _speed_up(*models: nn.Module | None) -> bool:
    """Speed up the layers of models on the CPU, and keep freed memory for the next micro-batch."""
    keep_freed_memory()
    return sum(speed_up_layers(model) for model in models if model is not None) > 0


def _choose_scoring(
    config: Any, scorer: Scorer, train: Prepared, sampler: StepSampler, pad_id: int, device: Device
) -> ScoringChoice:
    """Run the self-check on the first step's groups, in eval mode and off the run's random state."""
    groups: Sequence[Any] = [train.groups[int(index)] for index in sampler.groups_of(0)]
    with forked_rng(device):
        scorer.eval()
        packed = getattr(config, "packing", False)
        choice = choose_scoring(scorer, groups, pad_id=pad_id, check=config.self_check, fills_rows=packed)
        scorer.train()
    if not choice.shared and (packed or train.groups.max_completions > 1):
        notice(f"rows are not shared: {choice.reason}; each holds one completion")
    return choice
