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
    parameters: str
    memory: Mapping[str, float]
    """Estimated bytes by what they hold; `total` last."""

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
            "parameters": self.parameters,
            "memory": ", ".join(f"{name} {format_bytes(size)}" for name, size in self.memory.items()) + " (estimated)",
        }
        if brief:
            facts = {name: text for name, text in facts.items() if name not in ("device", "precision", "data")}
        width = max(map(len, facts))
        return [self.title, *(f"  {name:<{width}}  {text}" for name, text in facts.items())]


def format_bytes(size: float) -> str:
    """Bytes in GiB or MiB, for people."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"
