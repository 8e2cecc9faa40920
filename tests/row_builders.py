"""Rows for the tests of the data room."""

from __future__ import annotations

from typing import Any


def pair(prompt: str = "What is 7 times 8?", chosen: Any = "56", rejected: Any = "54", **more: Any) -> dict[str, Any]:
    """A conversational preference."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        **more,
    }
