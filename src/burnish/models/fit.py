"""Whether a run fits into memory: the largest micro-batch that does, and which settings help where none does.

Everything here is arithmetic on shapes (models.estimate, models.sharing); models may stand on the meta device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import nn

from burnish.models.estimate import MemoryEstimate
from burnish.models.sharing import Parallel, Zero, share_memory

USABLE = 0.9
"""Share of a device's memory that a plan may fill; driver, allocator and exchange buffers have the rest."""
TOKENS_STEP = 256
"""Budgets are multiples of it, unless the longest row is longer."""
MOST_TOKENS_A_GIB = 512
"""Most tokens of a micro-batch for each GiB of a device: what is more makes matrix products no faster."""
LEAST_TOKENS = 1024
MOST_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings that decide on memory; names are those of the command line."""

    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    gradient_checkpointing: bool = False
    parallel: Parallel = "ddp"
    use_peft: bool = False
    precompute_ref_log_probs: bool = False
    activation_offloading: bool = False
    zero: Zero | None = None
    """DeepSpeed's, whose JSON is the user's own: it is never added, and FSDP2 takes its place."""

    def flags_beside(self, other: Setup) -> str:
        """What has to be added to the flags of another setup to make it this one."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "zero" and value != getattr(other, field.name):
                words.append(f"--{field.name}" if value is True else f"--{field.name} {value}")
        words += ["without --deepspeed"] if other.zero and not self.zero else []
        return " ".join(words)


COSTS = {"precompute_ref_log_probs": 1, "precision": 1, "gradient_checkpointing": 2, "parallel": 2, "use_peft": 6}
"""How little one would like to change a setting: time first, then traffic, and last what is trained."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """A setup that fits, with the largest budget that it has room for."""

    setup: Setup
    max_tokens: int
    estimate: MemoryEstimate


@dataclass(frozen=True, slots=True)
class PaperRun:
    """A run as far as memory is concerned."""

    build: Callable[[Setup], nn.Module]
    """The policy of a setup; called often, so it keeps what it made."""
    devices: int
    memory: int
    """Bytes of each device."""
    row_tokens: int
    """Length of the longest row."""
    needs_reference: bool = True
    """Whether a second model is held: not where rows bring what it would say."""
    reference_weights: int | None = None
    """Of a reference of another shape; None where it is a copy of the policy's start, which adapters do without."""
    reference_dtype: torch.dtype | None = None
    can_precompute: bool = True
    """Whether the reference can say all before the first step."""

    @property
    def usable(self) -> int:
        """Bytes of each device that a plan may fill."""
        return int(self.memory * USABLE)

    def estimate(self, setup: Setup, tokens: int) -> MemoryEstimate:
        """Memory of each device with micro-batches of so many tokens."""
        model = self.build(setup)
        alone = share_memory(
            model,
            devices=self.devices,
            parallel=setup.parallel,
            zero=setup.zero,
            tokens=tokens,
            row_tokens=min(self.row_tokens, tokens),
            compute_dtype={"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[setup.precision],
            has_frozen_reference=self._holds_copy(setup),
            reference_dtype=self.reference_dtype,
            holds_activations=not setup.activation_offloading,
        )
        if self.reference_weights is None or not self.needs_reference or setup.precompute_ref_log_probs:
            return alone
        size = self.reference_weights * (self.reference_dtype or torch.float32).itemsize
        share = self.devices if setup.parallel == "fsdp" else 1
        return replace(alone, reference=size // share)

    def fitting(self, setup: Setup) -> Fitting | None:
        """The largest budget that a setup has room for; None where not even the longest row fits."""
        most = most_tokens(self.memory)
        found = largest_budget(lambda tokens: self.estimate(setup, tokens).total, self.usable, self.row_tokens, most)
        return None if found is None else Fitting(setup, found, self.estimate(setup, found))

    def _holds_copy(self, setup: Setup) -> bool:
        is_copy = self.needs_reference and self.reference_weights is None
        return is_copy and not setup.use_peft and not setup.precompute_ref_log_probs


def most_tokens(memory: int) -> int:
    """Most tokens that a micro-batch has on a device with so many bytes, however small the model."""
    return max(LEAST_TOKENS, int(memory / 2**30 * MOST_TOKENS_A_GIB))


def largest_budget(total_of: Callable[[int], int], usable: int, row_tokens: int, most: int) -> int | None:
    """The largest token budget whose bytes are within what is usable, a multiple of TOKENS_STEP; by bisection.

    Args:
        total_of: bytes for a number of tokens; grows with it.
        usable: bytes.
        row_tokens: length of the longest row: a micro-batch is never smaller.
        most: tokens that need not be exceeded.

    Returns:
        At least row_tokens; None where not even that fits.
    """
    if total_of(row_tokens) > usable:
        return None
    low, high = row_tokens // TOKENS_STEP, max(most, row_tokens) // TOKENS_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total_of(middle * TOKENS_STEP) <= usable else (low, middle - 1)
    return max(row_tokens, low * TOKENS_STEP)


def find_setups(run: PaperRun, given: Setup) -> list[Fitting]:
    """Setups that fit, the one that changes least first; none of them changes more than another that fits.

    Args:
        run: on paper.
        given: the settings as they are; what it has switched on stays on.
    """
    found: list[tuple[frozenset[str], Fitting]] = []
    for names, setup in _alternatives(run, given):
        if any(smaller <= names for smaller, _ in found):
            continue
        fitting = run.fitting(setup)
        if fitting is not None:
            found.append((names, fitting))
    return [fitting for _, fitting in found]


def fewest_devices(run: PaperRun, given: Setup) -> tuple[int, Setup] | None:
    """How many devices would do, doubled until a setup fits that trains what was asked for; None where none do."""
    devices = run.devices
    while (devices := 2 * devices) <= MOST_DEVICES:
        more = replace(run, devices=devices)
        for _, setup in _alternatives(more, given):
            if setup.use_peft == given.use_peft and more.estimate(setup, run.row_tokens).total <= run.usable:
                return devices, setup
    return None


def _alternatives(run: PaperRun, given: Setup) -> Iterator[tuple[frozenset[str], Setup]]:
    """All combinations of what may be switched on, the cheapest first, with the names of what changes."""
    changes = {"gradient_checkpointing": True, "use_peft": True, "precision": "bf16"}
    changes |= {"parallel": "fsdp"} if run.devices > 1 else {}
    changes |= {"precompute_ref_log_probs": True} if run.needs_reference and run.can_precompute else {}
    names = [name for name, value in changes.items() if getattr(given, name) != value]
    chosen = [subset for count in range(len(names) + 1) for subset in itertools.combinations(names, count)]
    for subset in sorted(chosen, key=lambda subset: sum(COSTS[name] for name in subset)):
        setup = replace(given, **{name: changes[name] for name in subset})
        setup = replace(setup, zero=None) if setup.parallel == "fsdp" else setup
        is_idle = setup.use_peft and run.reference_weights is None and "precompute_ref_log_probs" in subset
        if not is_idle and not (setup.parallel == "fsdp" and setup.precision == "fp16"):
            yield frozenset(subset), setup
