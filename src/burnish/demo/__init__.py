"""The embedded model, its preferences, and the judge of its manners. Nothing that the library imports.

`tools/build_demo_model.py` makes the model and the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoPaths:
    """Where the embedded material lies."""

    model: Path
    """A Hugging Face folder: Qwen2, about 2.4 million parameters, with tokenizer and chat template."""
    data: Path
    """A folder with train.jsonl and test.jsonl, preference pairs in conversational form."""
    settings: Path
    """demo.yaml: the settings of `burnish dpo` that suit this model and these preferences."""


def demo_paths() -> DemoPaths:
    """Paths of the embedded model, data and settings, wherever the package is installed as files."""
    home = Path(str(resources.files(__name__)))
    return DemoPaths(model=home / "model", data=home / "data", settings=home / "demo.yaml")
