"""Which architecture takes which fused operator. Imports nothing heavy.

An operator stands here where the model's own code computes exactly what the vendor documents, and a test compares
values and gradients with the CPU. What does not: norms that scale by 1 + weight (Gemma), that rotate interleaved pairs
(Cohere, GLM), or that cap or sink attention (Gemma 2, gpt-oss).
"""

from __future__ import annotations

OPERATORS = ("attention", "cross_entropy", "rms_norm", "rotary", "swiglu")
"""attention: one operator under a boolean mask, key heads shared as they are, the mask inverted once a micro-batch;
cross_entropy: of each block of the head, one operator forward and one backward;
rms_norm, rotary and swiglu: one operator each instead of six, eight and two."""
_ALL = frozenset(OPERATORS)
FUSABLE: dict[str, frozenset[str]] = {
    "llama": _ALL,
    "mistral": _ALL,
    "qwen2": _ALL,
    "qwen3": _ALL,
    "granite": _ALL,
}
"""model_type → the operators that it can use."""


def choose_operators(model_type: str, attention: str, asked: list[str]) -> frozenset[str]:
    """The operators that a model takes.

    Args:
        model_type: as its configuration says.
        attention: its attention implementation; only sdpa is replaced.
        asked: names, or auto for all that the architecture can use, or none.
    """
    wanted = _ALL if asked == ["auto"] else frozenset(asked)
    able = FUSABLE.get(model_type, frozenset())
    return (able if attention == "sdpa" else able - {"attention"}) & wanted
