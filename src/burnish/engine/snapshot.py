"""What a checkpoint keeps of a loop, and how the loop goes on from it: bit for bit on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from burnish.console import notice
from burnish.device.pick import Device
from burnish.device.ranks import Ranks
from burnish.device.rng import device_rng_state, seed_everything, set_device_rng_state
from burnish.device.sharding import is_sharded, local_part
from burnish.device.zero import ZeroOptimizer
from burnish.engine.checkpoint import (
    CheckpointState,
    load_optimizer_tensors,
    optimizer_tensors,
    pack_rng,
    restore_rng,
)
from burnish.engine.counters import Counters
from burnish.engine.loop import TrainingLoop
from burnish.engine.metrics import MetricSums
from burnish.engine.shard_files import group_of_shard
from burnish.engine.shards import put_weights, shard_name
from burnish.errors import IntegrityError
from burnish.models.logp_store import LogpStore

DEVICE_RNG = "device"
REFERENCE_SCORES = "reference-scores"
METHOD = "method"
REFERENCE = "reference"


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name: all weights, or the adapter's; shared weights once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def capture(loop: TrainingLoop, model: nn.Module, device: Device) -> CheckpointState:
    """Collect everything that the rest of the run depends on; of all ranks, and on each of them."""
    ranks = loop.passes.ranks
    rng = pack_rng()
    device_state = device_rng_state(device)
    if device_state is not None:
        rng[DEVICE_RNG] = device_state
    own = {f"rng-{ranks.rank}": rng, _sums_name(ranks.rank): _on_host(loop.sums.tensors())}
    return CheckpointState(
        step=loop.counters.step,
        counters={
            "loop": asdict(loop.counters),
            "schedule": plain_state(loop.schedule),
            "loss_scale": _loss_scale(loop),
            "best": asdict(loop.best),
            "callbacks": loop.callbacks.states(),
            "log_history": loop.callbacks.state.log_history,
            "cut": asdict(loop.passes.cut),
            "method": loop.passes.method.name,
            "reference": "" if loop.passes.reference is None else loop.passes.reference.store.identity,
        },
        tensors={
            **_own_weights(model, ranks, loop.optimizer),
            **{name: tensors for parts in ranks.gather(own) for name, tensors in parts.items()},
            **_reference_scores(loop),
            **_running_state(loop),
        },
        world_size=ranks.size,
    )


def restore(loop: TrainingLoop, model: nn.Module, device: Device, state: CheckpointState) -> None:
    """Put a loop where its checkpoint stands; the caller has checked the fingerprints.

    Raises:
        IntegrityError: tensors are missing (but for what the state says is lost), left over, or of another shape.
    """
    named = trainable_tensors(model)
    put_weights(state.tensors["model"], named, model)
    if isinstance(loop.optimizer, ZeroOptimizer):
        loop.optimizer.take_weights()
    missing = {"optimizer", "rng-0", "metric-sums"} - set(state.tensors)
    if missing and not state.lost:
        raise IntegrityError(
            f"{state.path} holds no {', '.join(sorted(missing))}; --allow_partial_resume goes on without"
        )
    if "optimizer" in state.tensors:
        load_optimizer_tensors(loop.optimizer, named, state.tensors["optimizer"])
    loop.schedule.load_state_dict(
        {**state.counters["schedule"], "lr_lambdas": [None] * len(loop.optimizer.param_groups)}
    )
    _restore_loss_scale(loop, state.counters.get("loss_scale", {}))
    loop.counters = Counters(**known_fields(Counters, state.counters["loop"]))
    loop.best.value, loop.best.step = state.counters["best"]["value"], state.counters["best"]["step"]
    loop.callbacks.restore(state.counters["callbacks"])
    loop.callbacks.state.log_history = list(state.counters["log_history"])
    loop.callbacks.state.best_metric, loop.callbacks.state.best_global_step = loop.best.value, loop.best.step
    loop.sums.restore(_own_sums(loop.passes.ranks, state), device.torch_device)
    loop.passes.method.load_state_tensors(state.tensors.get(METHOD, {}))
    loop.last_saved_step = loop.counters.step
    if loop.passes.reference is not None:
        loop.passes.reference.load_state_tensors(state.tensors.get(REFERENCE, {}))
        _restore_reference_scores(loop.passes.reference.store, state)
    _restore_rng(loop, device, state)


def known_fields(kind: type, saved: Mapping[str, Any]) -> dict[str, Any]:
    """What this version knows of a record in a checkpoint: a later one may have written more."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in saved.items() if name in names}


def _own_weights(model: nn.Module, ranks: Ranks, optimizer: Any) -> dict[str, dict[str, Tensor]]:
    """Weights and optimizer state; of a model that is spread over ranks, this rank's slices, under their own names."""
    named = trainable_tensors(model)
    state = optimizer_tensors(optimizer, named)
    if not is_sharded(model):
        return {"model": named, "optimizer": state}
    weights = {name: local_part(parameter) for name, parameter in named.items()}
    return {shard_name("model", ranks): weights, shard_name("optimizer", ranks): state}


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _sums_name(rank: int) -> str:
    return f"metric-sums-{rank}" if rank else "metric-sums"


def _own_sums(ranks: Ranks, state: CheckpointState) -> dict[str, Tensor]:
    """This rank's metric sums; where there were other ranks, rank 0 goes on from the sums of all."""
    if state.world_size == ranks.size:
        return state.tensors.get(_sums_name(ranks.rank), {})
    total = MetricSums()
    for rank in range(state.world_size if ranks.is_main else 0):
        part = MetricSums()
        part.restore(state.tensors.get(_sums_name(rank), {}), torch.device("cpu"))
        total.merge(part)
    return total.tensors()


def _restore_rng(loop: TrainingLoop, device: Device, state: CheckpointState) -> None:
    """This rank's random states; where there were other ranks, dropout draws from new ones (seed, step, rank)."""
    ranks = loop.passes.ranks
    if state.world_size != ranks.size:
        seed_everything(loop.settings.seed + 1_000_003 * state.step + ranks.rank)
        return
    if f"rng-{ranks.rank}" not in state.tensors:
        return
    rng = dict(state.tensors[f"rng-{ranks.rank}"])
    device_state = rng.pop(DEVICE_RNG, None)
    restore_rng(rng)
    if device_state is not None:
        set_device_rng_state(device, device_state)


def copied(state: CheckpointState) -> CheckpointState:
    """The state with tensors and counters of its own on the host, for writing while training goes on."""
    tensors = {
        group: {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}
        for group, named in state.tensors.items()
    }
    return replace(state, tensors=tensors, counters=copy.deepcopy(state.counters))


def find_nonfinite(state: CheckpointState) -> str | None:
    """Name the first weight or optimizer state that holds NaN or infinity; one copy to the host a device."""
    named = [
        (f"{group} {name}", tensor)
        for group, tensors in state.tensors.items()
        if group_of_shard(group) in ("model", "optimizer")
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.numel()
    ]
    # A sum keeps every NaN and infinity; one that only overflowed is looked at again.
    sums: dict[torch.device, list[tuple[str, Tensor, Tensor]]] = {}
    for name, tensor in named:
        sums.setdefault(tensor.device, []).append((name, tensor, tensor.detach().sum(dtype=torch.float32)))
    for entries in sums.values():
        finite = torch.isfinite(torch.stack([total for _, _, total in entries])).tolist()
        for (name, tensor, _), is_finite in zip(entries, finite, strict=True):
            if not is_finite and not bool(torch.isfinite(tensor).all()):
                return name
    return None


def _reference_scores(loop: TrainingLoop) -> dict[str, dict[str, Tensor]]:
    """Scores of a cache that lives in memory: scored again in other company, they would differ by rounding."""
    arrays = {} if loop.passes.reference is None else loop.passes.reference.store.arrays()
    named = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return {REFERENCE_SCORES: named} if named else {}


def _restore_reference_scores(store: LogpStore, state: CheckpointState) -> None:
    """Take back what the reference said, unless it was another one, which --allow_changed allows."""
    scores = state.tensors.get(REFERENCE_SCORES, {})
    if not scores:
        return
    if state.counters.get("reference", store.identity) != store.identity:
        notice("the reference is another one than the checkpoint's: completions are scored again")
        return
    store.restore({name: tensor.numpy() for name, tensor in scores.items()})


def _loss_scale(loop: TrainingLoop) -> dict[str, Any]:
    """The gradient scaler's scale and how it grows; empty where losses are not scaled."""
    scaler = loop.passes.accelerator.scaler
    return {} if scaler is None else scaler.state_dict()


def _restore_loss_scale(loop: TrainingLoop, saved: Mapping[str, Any]) -> None:
    """Take back the scale: from its first value the run would skip steps again until it has come down."""
    scaler = loop.passes.accelerator.scaler
    if scaler is not None and saved:
        scaler.load_state_dict(scaler.state_dict() | dict(saved))  # each device's scaler has keys of its own


def _running_state(loop: TrainingLoop) -> dict[str, dict[str, Tensor]]:
    """What objective and reference have become, where they change as the run goes."""
    reference = {} if loop.passes.reference is None else loop.passes.reference.state_tensors()
    groups = {METHOD: loop.passes.method.state_tensors(), REFERENCE: reference}
    return {name: tensors for name, tensors in groups.items() if tensors}


def plain_state(schedule: Any) -> dict[str, Any]:
    """A schedule's state without its functions, which settings make again."""
    return {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"}
