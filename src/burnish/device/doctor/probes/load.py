"""Imports torch and torch_npu, asks for devices, and prints what it learns line by line; run as a script.

A JSON line leaves after each stage, so that a crash or a hang keeps what was learned before it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import platform
import time
from typing import Any

MARK = "burnish-probe "


def say(stage: str, **facts: Any) -> None:
    """Print one stage's facts."""
    print(MARK + json.dumps({"stage": stage, **facts}), flush=True)


def chain(error: BaseException | None) -> str:
    """Join an error and its causes, one a line, the deepest last."""
    lines: list[str] = []
    while error is not None:
        lines.append(f"{type(error).__name__}: {error}".strip())
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(lines)


def devices_of(torch: Any, kind: str) -> dict[str, Any]:
    """Count and describe the devices of one kind."""
    module = getattr(torch, kind, None)
    if module is None or not module.is_available():
        return {"count": 0}
    count = module.device_count()
    return {
        "count": count,
        "names": [module.get_device_name(index) for index in range(count)],
        "total_bytes": int(module.get_device_properties(0).total_memory) if count else 0,
        "bf16": bool(module.is_bf16_supported()) if count else False,
    }


def main() -> None:
    """Go from import to devices."""
    start = time.monotonic()
    try:
        torch = importlib.import_module("torch")
    except BaseException as error:
        say("torch", error=chain(error))
        return
    say("torch", threads=torch.get_num_threads(), processor=platform.machine())
    if importlib.util.find_spec("torch_npu") is not None:
        try:
            importlib.import_module("torch_npu")
        except BaseException as error:
            say("torch_npu", error=chain(error), seconds=time.monotonic() - start)
            return
    say("loaded", seconds=time.monotonic() - start)
    for kind in ("npu", "cuda"):
        try:
            say(kind, **devices_of(torch, kind))
        except BaseException as error:
            say(kind, count=0, error=chain(error))


if __name__ == "__main__":
    main()
