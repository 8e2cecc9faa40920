"""Checks that compute: each trial on the device against the CPU, and two processes that sum a tensor (`--smoke`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from burnish.device.doctor.findings import Check, Finding, failure, ok, skipped, warning
from burnish.device.doctor.loading import Loaded, deepest, ending, failing, load_torch, read_stages
from burnish.device.doctor.machine import Machine, Outcome
from burnish.device.doctor.packages import probe_command, read_packages
from burnish.device.fused.table import OPERATORS

_SECONDS = 300
_BACKENDS = {"npu": "hccl", "cuda": "nccl", "cpu": "gloo"}


@dataclass(frozen=True, slots=True)
class Trials:
    """What the trial computations gave."""

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=lambda: Outcome(0))


def not_asked(machine: Machine) -> Finding:
    """Stand for a computing check where `--smoke` was not given."""
    return skipped("skip.no_smoke")


def trial(name: str, *, wrong: str = "smoke.wrong", **names: str) -> Check:
    """Make the check of one trial of `probes/small_run.py`; `wrong` is what a wrong result is told as."""

    def check(machine: Machine) -> Finding:
        loaded = loaded_torch(machine)
        if not loaded.works:
            return skipped("skip.no_torch")
        trials = machine.once(run_trials)
        device = device_of(machine, loaded)
        facts = trials.stages.get(name)
        if facts is None:
            how = ending(trials.outcome)
            known = trials.outcome.error if trials.outcome.code else ""
            return (
                failing("smoke.fails", known, deepest(known), device=device)
                if known
                else failure("smoke.silent", how=how)
            )
        return _judged(facts, wrong, device=device, **names)

    return check


def check_ranks(machine: Machine) -> Finding:
    """Two processes sum a tensor: over the devices where there are two, over the CPU otherwise."""
    loaded = loaded_torch(machine)
    if not loaded.works:
        return skipped("skip.no_torch")
    kind = chosen_kind(machine, loaded)
    if loaded.devices(kind) < 2:
        kind = "cpu"
    names = {"backend": _BACKENDS[kind], "device": kind}
    command = probe_command(machine, "two_ranks.py", _BACKENDS[kind], kind)
    outcome = machine.run(command, timeout=_SECONDS, environment=_single_run(machine))
    facts = read_stages(outcome.output).get("ranks", {})
    if facts.get("right"):
        return ok("ranks.ok", seconds=f"{facts['seconds']:.1f}", **names)
    if facts.get("good"):
        return failure("ranks.wrong", **names)
    text = outcome.error or ending(outcome)
    return failing("ranks.fails", text, deepest(text), **names)


def run_trials(machine: Machine) -> Trials:
    """Run all trials in one process: loading torch is what takes the time."""
    kind = chosen_kind(machine, loaded_torch(machine))
    command = probe_command(machine, "small_run.py", kind)
    outcome = machine.run(command, timeout=_SECONDS, environment=_single_run(machine))
    return Trials(read_stages(outcome.output), outcome)


def loaded_torch(machine: Machine) -> Loaded:
    """Facts of the process that imported torch; empty without torch."""
    return machine.once(load_torch) if machine.once(read_packages).version("torch") else Loaded()


def chosen_kind(machine: Machine, loaded: Loaded) -> str:
    """The kind of device to try: what `--device` says where torch sees it, else what training would use."""
    if machine.wanted == "cpu" or (machine.wanted != "auto" and loaded.devices(machine.wanted)):
        return machine.wanted
    return loaded.kind


def device_of(machine: Machine, loaded: Loaded) -> str:
    """Name of the device that is tried."""
    kind = chosen_kind(machine, loaded)
    return "cpu" if kind == "cpu" else f"{kind}:0"


def _single_run(machine: Machine) -> dict[str, str]:
    """Environment of one process, without the ranks that a launcher may have left."""
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    return {name: value for name, value in machine.environment.items() if name not in ranks}


def _judged(facts: dict[str, Any], wrong: str, *, device: str, **names: str) -> Finding:
    if facts.get("absent"):
        return warning("smoke.no_bf16", device=device)
    if "error" in facts:
        return failing("smoke.fails", facts["error"], deepest(facts["error"]), device=device)
    figures = {"device": device, "measured": f"{facts['measured']:.1e}", "limit": f"{facts['limit']:.0e}"}
    # Written this way round so that NaN fails.
    return ok("smoke.ok", **figures) if facts["measured"] <= facts["limit"] else failure(wrong, **figures, **names)


def fused_trial(operator: str) -> Check:
    """Make the check of one fused operator of an NPU; its failure says how to train without it."""
    others = " ".join(name for name in OPERATORS if name != operator)

    def check(machine: Machine) -> Finding:
        loaded = loaded_torch(machine)
        if loaded.works and chosen_kind(machine, loaded) != "npu":
            return skipped("skip.no_npu")
        if loaded.works and machine.once(run_trials).stages.get(f"fused_{operator}", {}).get("absent"):
            return skipped("skip.plain_operators")
        return trial(f"fused_{operator}", wrong="smoke.fused_wrong", others=others)(machine)

    return check


TRIALS: dict[str, Callable[[Machine], Finding]] = {
    name: trial(name) for name in ("matmul", "attention", "bf16", "optimizer")
} | {f"fused_{operator}": fused_trial(operator) for operator in OPERATORS}
