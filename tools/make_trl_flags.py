"""Write the list of all settings of `trl dpo` with their defaults to tests/golden/trl_dpo_flags.json.

Run once per TRL version, in an environment of its own: `python -m venv E && E/bin/pip install trl==1.16.0 peft &&
E/bin/python tools/make_trl_flags.py`. The defaults are those of the fields, before TRL derives others from them.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests" / "golden" / "trl_dpo_flags.json"


def main() -> None:
    from trl import DatasetMixtureConfig, DPOConfig, ModelConfig, ScriptArguments  # pyright: ignore[reportMissingImports]

    flags: dict[str, dict[str, Any]] = {}
    for config_type in (ScriptArguments, DPOConfig, ModelConfig, DatasetMixtureConfig):
        for field in dataclasses.fields(config_type):
            flags[field.name] = {"group": config_type.__name__, "default": default_of(field)}
    versions = {name: importlib.metadata.version(name) for name in ("trl", "transformers")}
    OUT.write_text(json.dumps({"versions": versions, "flags": flags}, indent=1) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(flags)} settings of {versions}")


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    default = field.default
    return getattr(default, "value", default)


if __name__ == "__main__":
    main()
