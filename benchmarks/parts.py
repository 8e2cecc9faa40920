"""The parts of the benchmark: what is trained, evaluated or prepared, on which pairs, and who takes turns at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

DATA = {"long": "long prompts", "gsm8k": "gsm8k"}
SIDES = {"train": ("TRL", "burnish", "rate"), "prepare": ("TRL", "burnish", "burnish-plain")}
"""Who takes turns: burnish-plain has no fastokens, rate measures the machine's matrix products."""


@dataclass(frozen=True, slots=True)
class Part:
    """Turns that belong together."""

    name: str
    kind: Literal["train", "prepare"]
    data: Literal["long", "gsm8k"]
    precision: Literal["fp32", "bf16"] = "fp32"
    epochs: int = 1
    """Steps of a turn; each takes the same pairs, so that all but the first find the reference in the cache."""
    evaluate: bool = False
    large_vocabulary: bool = False


PARTS = (
    Part("prepare-long", "prepare", "long"),
    Part("prepare-gsm8k", "prepare", "gsm8k"),
    Part("fp32-long", "train", "long", epochs=2, evaluate=True),
    Part("fp32-gsm8k", "train", "gsm8k", epochs=2, evaluate=True),
    Part("bf16-long", "train", "long", "bf16"),
    Part("bf16-gsm8k", "train", "gsm8k", "bf16"),
    Part("vocabulary", "train", "gsm8k", large_vocabulary=True),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    pairs: int
    """Pairs of an optimizer step, and of an evaluation; a multiple of micro_batch."""
    vocabulary_pairs: int
    """Pairs of the step with the large vocabulary."""
    micro_batch: int
    """Pairs of a TRL micro-batch."""
    rounds: int
    """Turns of each side."""
    prepared_rows: int
    """Rows of a preparation."""
    threads: int
    learning_rate: float

    def pairs_of(self, part: Part) -> int:
        """Pairs of an optimizer step of a part."""
        return self.vocabulary_pairs if part.large_vocabulary else self.pairs


FULL = Sizes(16, 4, 2, 3, 8000, 2, 5e-7)
"""The reference job's step, 16 pairs as micro-batches of 2. TRL's cost of a pair grows with a step's micro-batches."""
QUICK = Sizes(2, 2, 2, 1, 500, 2, 5e-7)


def make_job(part: Part, side: str, sizes: Sizes, *, model: str, data: str, eval_data: str | None) -> dict[str, Any]:
    """Return what a turn is told to do."""
    if part.kind == "prepare":
        backend = "huggingface" if side == "burnish-plain" else "auto"
        job = {"kind": "prepare", "model": model, "data": data, "threads": sizes.threads}
        return job if side == "TRL" else job | {"tokenizer_backend": backend}
    pairs = sizes.pairs_of(part)
    return {
        "kind": "rate" if side == "rate" else "train",
        "model": model,
        "data": data,
        "eval_data": eval_data,
        "pairs": pairs,
        "micro_batch": min(sizes.micro_batch, pairs),
        "steps": part.epochs,
        "precision": part.precision,
        "threads": sizes.threads,
        "learning_rate": sizes.learning_rate,
    }
