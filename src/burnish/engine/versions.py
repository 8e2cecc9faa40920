"""Which versions of burnish and the packages below it a checkpoint was written with."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

_PACKAGES = ("burnish", "torch", "transformers", "accelerate", "peft", "safetensors", "numpy")


@cache
def package_versions() -> dict[str, str]:
    """Versions of burnish and the packages below it, without importing them."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
