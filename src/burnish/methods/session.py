"""From settings to everything a loop needs: policy, scorer, reference, and how rows are cut."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from burnish.batching.sampler import Numbering, StepSampler
from burnish.console import notice
from burnish.data.prepare import Prepared
from burnish.device.fused.fuse import fuse_operators
from burnish.device.memory import keep_freed_memory
from burnish.device.offloading import HostMemory
from burnish.device.pick import Device
from burnish.device.precision import Precision
from burnish.device.ranks import Ranks
from burnish.device.rng import forked_rng, seed_everything
from burnish.device.sharding import shard_module
from burnish.engine.begun_step import BegunStep
from burnish.engine.cut import Cut
from burnish.engine.method import Method
from burnish.errors import ConfigError
from burnish.methods.budget import build_cut
from burnish.methods.config import global_batch_size
from burnish.methods.default_budget import RunShapes, default_max_tokens
from burnish.methods.learnable import check_learnable
from burnish.methods.opening import (
    Inputs,
    Opened,
    complete_models,
    num_embeddings,
    offloads,
)
from burnish.methods.reference import build_reference, has_given_reference
from burnish.models.cached_reference import CachedReference
from burnish.models.cpu_layers import speed_up_layers
from burnish.models.given_reference import GivenReference
from burnish.models.reference import FrozenReference
from burnish.models.tokenizer import check_vocabulary, stop_at_end_of_text
from burnish.scoring.architecture import layers_of
from burnish.scoring.routing import own_router_coefficient
from burnish.scoring.scorer import Scorer, unwrap_adapter
from burnish.scoring.self_check import ScoringChoice, choose_scoring


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
    begun: BegunStep | None = None
    """The first step, where it was begun before all rows were there."""


def assemble_session(config: Any, inputs: Inputs, method: Method, opened: Opened, *, is_whole: bool = True) -> Session:
    """Build all parts of a run from what it opens with.

    Args:
        config: settings of the method.
        inputs: what Python hands over.
        method: gives losses.
        opened: device, policy's start, rows.
        is_whole: whether these rows are all; a reference is then not made where its cache knows them.
    """
    device, precision, ranks, train = opened.device, opened.precision, opened.ranks, opened.train
    pad_id = opened.tokenizer.pad_token_id
    is_given = has_given_reference(config, method, opened.stores)
    loads_reference = method.needs_reference and not is_given
    if inputs.ref_model is not None and not loads_reference:
        why = "the rows bring ref_chosen_logps" if is_given else "the objective compares with no reference"
        raise ConfigError(f"ref_model: {why}; leave it out")
    policy, other = _settle_models(config, inputs, opened, needs_reference=loads_reference)
    check_rows(config, policy, opened, is_whole=is_whole)
    is_spread = config.parallel == "fsdp" and ranks.size > 1
    if not is_spread:  # what may be larger than a device is checked on the host, and goes there in slices
        policy.to(device.torch_device)
    fused = _fuse(config, device, policy, other)
    has_fast_layers = config.fused_layers and not device.is_accelerator and _speed_up(policy, other)
    scorer = method.build_scorer(policy, token_metrics=config.token_metrics)
    if offloads(config, device):
        scorer.keeping = HostMemory(policy)
    sampler = build_sampler(config, train, ranks)
    scoring = _choose_scoring(config, scorer, train, sampler, pad_id, device)
    scorer.head_path = scoring.head_path
    router_coefficient = _router_coefficient(config, policy)
    scorer.sums_routing = router_coefficient > 0
    reference = GivenReference() if is_given else None
    if loads_reference:
        identity = _reference_identity(opened, scorer) | _kernels(scoring.packed, fused, has_fast_layers, precision)
        known = itertools.chain(*opened.stores) if is_whole and not method.scores_other_groups else None
        reference = build_reference(config, scorer, other, known, identity, ranks)
    if is_spread:
        scoring = replace(scoring, packed=scoring.packed and not device.is_accelerator)
        _spread(scorer, reference, device, ranks, precision.dtype)
    budget = _choose_budget(config, opened, policy, reference, scoring)
    if ranks.rank:
        seed_everything(config.seed + ranks.rank)  # weights are made; from here on, each rank draws its own dropout
    return Session(
        device=device,
        precision=precision,
        tokenizer=opened.tokenizer,
        train=train,
        held_out=opened.held_out,
        model=policy,
        scorer=scorer if is_spread or opened.zero else opened.accelerator.prepare_model(scorer),
        reference=reference,
        accelerator=opened.accelerator,
        sampler=sampler,
        scoring=scoring,
        cut=build_cut(config, scoring, pad_id, budget),
        ranks=ranks,
        fingerprints=opened.fingerprints,
        asked_tokens=config.max_tokens_per_micro_batch,
        router_coefficient=router_coefficient,
        zero=opened.zero,
    )


def _settle_models(
    config: Any, inputs: Inputs, opened: Opened, *, needs_reference: bool
) -> tuple[nn.Module, nn.Module | None]:
    """Complete the policy and load its reference, and note their fingerprints."""
    policy, other, more = complete_models(config, inputs, opened.start, needs_reference=needs_reference)
    opened.fingerprints |= more
    if config.eos_token is not None:
        stop_at_end_of_text(policy, opened.tokenizer)
    return policy, other


def check_rows(config: Any, policy: nn.Module, opened: Opened, *, is_whole: bool = True) -> None:
    """Check the policy against the rows, and where these are all, both against those of other ranks.

    Raises:
        ConfigError, DataError: an id that the policy does not embed, other rows on another rank, nothing to learn.
    """
    for groups in opened.stores:
        check_vocabulary(groups.highest_id, num_embeddings(policy), opened.tokenizer)
    if not is_whole:
        return
    check_equal_on_all_ranks(opened.ranks, {"data": opened.train.fingerprint, **opened.fingerprints})
    check_learnable(config, policy, opened.train.groups)


def build_sampler(config: Any, train: Prepared, ranks: Ranks) -> StepSampler:
    """The order of the groups, and how many make a step."""
    batch_size, groups = global_batch_size(config, ranks.size), train.groups
    numbering = Numbering(groups.numbers, train.report.examples_read) if train.has_gaps else None
    return StepSampler(len(groups), batch_size, config.seed, config.train_sampling_strategy, numbering)


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


def _reference_identity(opened: Opened, scorer: Scorer) -> dict[str, str]:
    """Return whose log-probabilities a cache holds: the weights', and what of the last layer was computed."""
    fingerprints = opened.fingerprints
    identity = {
        "weights": fingerprints.get("reference", fingerprints["base_model"]),
        "device": opened.device.kind,
    }
    return identity | ({"last_layer": "counted"} if scorer.trims_last_layer else {})


def _choose_budget(config: Any, opened: Opened, policy: nn.Module, reference: Any, scoring: ScoringChoice) -> int:
    """Tokens of a micro-batch: the setting, else what the longest group and the device's memory suggest."""
    groups = opened.train.groups
    lengths = groups.tree_lengths if scoring.shared else groups.num_tokens
    held = isinstance(getattr(reference, "live", None), FrozenReference)
    shapes = RunShapes(policy, int(lengths.max()), opened.precision.dtype, has_frozen_reference=held)
    return config.max_tokens_per_micro_batch or default_max_tokens(config, opened.device, shapes, opened.ranks)


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
