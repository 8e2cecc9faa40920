"""The plan of a run: what it will do, in numbers, before it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Derived numbers and the reason of each choice, for `--dry_run` and the start of a run."""

    title: str
    device: str
    precision: str
    policy: str
    reference: str
    objective: str
    data: str
    """The data report's one line."""
    tokens: str
    steps: str
    cut: str
    """Micro-batches, and whether prompts are shared, with the reason."""
    activations: str
    """Kept or recomputed in the backward pass, and why."""
    parameters: str
    memory: Mapping[str, float]
    """Estimated bytes of one device by what they hold; `total` last."""
    devices: int = 1
    """That share the run."""

    def lines(self, *, brief: bool = False) -> list[str]:
        """The plan as aligned lines of text; brief leaves out what a starting run has said already."""
        facts = {
            "device": self.device,
            "precision": self.precision,
            "policy": self.policy,
            "reference": self.reference,
            "objective": self.objective,
            "data": self.data,
            "tokens": self.tokens,
            "steps": self.steps,
            "micro-batches": self.cut,
            "activations": self.activations,
            "parameters": self.parameters,
            "memory": f"{describe_memory(self.memory)} (estimated{self._each()})",
        }
        if brief:
            facts = {name: text for name, text in facts.items() if name not in ("device", "precision", "data")}
        width = max(map(len, facts))
        return [self.title, *(f"  {name:<{width}}  {text}" for name, text in facts.items())]

    def _each(self) -> str:
        return "" if self.devices == 1 else f", on each of {self.devices} devices"


def describe_memory(memory: Mapping[str, float]) -> str:
    """Parts of an estimate in one line."""
    return ", ".join(f"{name} {format_bytes(size)}" for name, size in memory.items())


def format_bytes(size: float) -> str:
    """Bytes in GiB or MiB, for people."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
