"""Write the lists of all settings of `trl dpo`, `kto`, `sft` and `reward` with their defaults to tests/golden.

Run once per TRL version, in an environment of its own: `python -m venv E && E/bin/pip install trl==1.16.0 peft &&
E/bin/python tools/make_trl_flags.py`. The defaults are those of the fields, before TRL derives others from them.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tests" / "golden"


def main() -> None:
    import trl  # pyright: ignore[reportMissingImports]

    versions = {name: importlib.metadata.version(name) for name in ("trl", "transformers")}
    of_methods = {"dpo": trl.DPOConfig, "kto": trl.KTOConfig, "sft": trl.SFTConfig, "reward": trl.RewardConfig}
    for method, config_type in of_methods.items():
        groups = (trl.ScriptArguments, config_type, trl.ModelConfig, trl.DatasetMixtureConfig)
        flags = {field.name: described(field, group) for group in groups for field in dataclasses.fields(group)}
        path = FOLDER / f"trl_{method}_flags.json"
        path.write_text(json.dumps({"versions": versions, "flags": flags}, indent=1) + "\n", encoding="utf-8")
        print(f"{path}: {len(flags)} settings of {versions}")


def described(field: dataclasses.Field[Any], group: type) -> dict[str, Any]:
    return {"group": group.__name__, "default": default_of(field)}


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    default = field.default
    return getattr(default, "value", default)


if __name__ == "__main__":
    main()
