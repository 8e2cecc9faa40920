"""Useful operations of preference training, and the rate at which the machine can do them.

Useful operations of a pair, with P the non-embedding parameters without the head, H those of the head (hidden x
vocabulary), n its distinct tokens (the prompt once), c its counted tokens and v its visible query-key pairs, over L
layers, for 3 passes of the policy (forward, and twice that backward) and r of the reference (1, or 0 from the cache):

    2 P n (3 + r)  +  2 H c (3 + r)  +  4 hidden v L (3 + r)
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY_PASSES = 3
TOKENS, COUNTED = 2048, 512
"""Rows of the products that are timed: a micro-batch's tokens, and those that meet the vocabulary."""
REPEATS = 7


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder with gated feed-forward layers."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int

    @classmethod
    def read(cls, folder: Path) -> ModelShape:
        """Read a model folder's config.json."""
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            key_value_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
        )

    @property
    def products(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a layer's linear maps."""
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        attention = [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]

    @property
    def body_parameters(self) -> int:
        """Weights of the linear maps of all layers: the parameters without embeddings, head and norms."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.products)

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocabulary


@dataclass(frozen=True, slots=True)
class PairLengths:
    """Tokens of a pair."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def distinct_tokens(self) -> int:
        return self.prompt + sum(self.completions)

    @property
    def counted_tokens(self) -> int:
        return sum(self.completions)

    @property
    def visible(self) -> int:
        """Query-key pairs: each token sees itself and what comes before it in its own sequence."""
        seen = sum(length * self.prompt + length * (length + 1) // 2 for length in self.completions)
        return self.prompt * (self.prompt + 1) // 2 + seen


def useful_operations(shape: ModelShape, pairs: Iterable[PairLengths], *, reference_passes: int) -> int:
    """Return the operations that a step on these pairs cannot do without; see the module's formula.

    Args:
        shape: the model's.
        pairs: of the step.
        reference_passes: 1, or 0 where the reference's scores come from the cache.
    """
    passes = POLICY_PASSES + reference_passes
    attention = 4 * shape.heads * shape.head_size * shape.layers
    return passes * sum(
        2 * shape.body_parameters * pair.distinct_tokens
        + 2 * shape.head_parameters * pair.counted_tokens
        + attention * pair.visible
        for pair in pairs
    )


def measure_rate(shape: ModelShape, *, precision: str, threads: int) -> float:
    """Return operations per second of the model's own matrix products, forward and backward in training's proportion.

    Each product is timed by itself with torch.mm, at TOKENS rows (COUNTED for the head); the median of REPEATS counts.
    """
    import torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    kinds = {product: shape.products.count(product) * shape.layers for product in set(shape.products)}
    work = [(TOKENS, *product, count) for product, count in kinds.items()]
    work.append((COUNTED, shape.hidden, shape.vocabulary, 1))
    operations = seconds = 0.0
    for rows, inputs, outputs, count in work:
        seconds += count * _seconds_of(rows, inputs, outputs, dtype)
        operations += count * (POLICY_PASSES + 1) * 2 * rows * inputs * outputs
    return operations / seconds


def _seconds_of(rows: int, inputs: int, outputs: int, dtype: Any) -> float:
    """Seconds of two forward products (policy and reference) and the two of the backward pass."""
    import torch

    taken: list[float] = []
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    gradient = torch.randn(rows, outputs).to(dtype)
    for _ in range(REPEATS):
        began = time.perf_counter()
        torch.mm(x, weight.T)
        torch.mm(x, weight.T)
        torch.mm(gradient, weight)
        torch.mm(gradient.T, x)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
