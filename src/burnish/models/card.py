"""The model card: what a trained model was made from, how, and how well it did."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from burnish.secrets import redact

LIBRARIES = ("burnish", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")
_REWARD = "reward"


def model_card(
    *,
    base_model: str | None,
    method: str,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    adapter: bool = False,
    title: str | None = None,
) -> str:
    """Write a README.md with the front matter that model hubs read.

    Folders are named by their last part alone: a card is published, and the paths of a machine are nobody's business.

    Args:
        base_model: hub id or folder of the model that training started from; None for a model made from nothing.
        method: short name of what was done, e.g. dpo; becomes a tag. With `reward` in it, it is a reward model's.
        settings: resolved settings that differ from their defaults, or all of them; None values are left out.
        data: facts on the data, by name: dataset (its name, also in the front matter), groups, tokens, what was cut.
        metrics: final values by their log keys.
        adapter: whether the folder holds a peft adapter instead of whole weights.
        title: heading; default "<base> + <method>".

    Returns:
        Markdown.
    """
    import yaml

    base = _public_name(base_model)
    task = "text-classification" if _REWARD in method else "text-generation"
    front: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": task}
    if base is not None:
        front["base_model"] = base
    dataset = (data or {}).get("dataset")
    if isinstance(dataset, str):
        front["datasets"] = [_public_name(dataset)]
    front["tags"] = ["burnish", method.replace(" ", "-"), *(["lora"] if adapter else [])]
    heading = title or f"{Path(base).name} + {method}" if base else title or method
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {heading}",
        _what(base, method, adapter=adapter),
        _table("Data", data, ("what", "value")),
        _table("Final metrics", metrics, ("metric", "value")),
        _table("Settings", settings, ("setting", "value")),
        _table("Versions", versions(), ("library", "version")),
    ]
    return redact("\n\n".join(part for part in parts if part) + "\n")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what a run computes, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _what(base: str | None, method: str, *, adapter: bool) -> str:
    thing = "A LoRA adapter" if adapter else "A reward model" if _REWARD in method else "A language model"
    origin = f" from `{base}`" if base else ""
    return f"{thing} trained{origin} with burnish ({method}). Load it with {_loader(method, adapter=adapter)}."


def _loader(method: str, *, adapter: bool) -> str:
    if _REWARD not in method:
        return "peft's `AutoPeftModelForCausalLM`" if adapter else "transformers' `AutoModelForCausalLM`"
    if adapter:
        return "peft's `AutoPeftModelForSequenceClassification` and `num_labels=1`, which holds the scalar head too"
    return "transformers' `AutoModelForSequenceClassification`"


def _table(heading: str, rows: Mapping[str, Any] | None, columns: tuple[str, str]) -> str:
    shown = {key: value for key, value in (rows or {}).items() if value is not None}
    if not shown:
        return ""
    lines = [f"| {columns[0]} | {columns[1]} |", "|---|---|"]
    lines += [f"| {_cell(key)} | {_cell(_shown(value))} |" for key, value in shown.items()]
    return "\n".join([f"## {heading}", "", *lines])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value)
    return _public_name(str(value)) or ""


def _public_name(name: str | None) -> str | None:
    """A hub id as it is; of a path, only its last part."""
    if name is None:
        return None
    is_path = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or Path(name).exists()
    if PureWindowsPath(name).drive:
        return PureWindowsPath(name).name
    return Path(name).expanduser().absolute().name if is_path and name else name
