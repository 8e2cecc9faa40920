"""Prints this interpreter's packages as one JSON line, importing none of them; run as a script."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
from pathlib import Path


def installed() -> dict[str, str]:
    """Normalised name → version of every distribution; the first on the path wins, as it does on import."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return versions


def torch_build() -> str:
    """Read what torch was built for from its version file; its version alone does not always tell."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    for name, label in (("cuda", "CUDA"), ("hip", "ROCm"), ("xpu", "XPU")):
        match = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
        if match:
            return f"{label} {match.group(1)}"
    return "CPU"


if __name__ == "__main__":
    facts = {"python": list(sys.version_info[:3]), "versions": installed(), "torch_build": torch_build()}
    print(json.dumps(facts))
