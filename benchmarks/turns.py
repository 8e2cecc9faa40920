"""Runs each turn in a process of its own and keeps what it measured, so that a benchmark goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class TurnError(Exception):
    """A turn that failed; the message is its last lines."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of those who take turns."""

    name: str
    python: str
    script: Path
    sources: tuple[Path, ...]
    """Files whose change makes earlier records worthless."""


def sides(trl_python: str) -> dict[str, Side]:
    """Return all sides by name."""
    spec = find_spec("burnish")
    package = Path(spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else ".")
    shared = (HERE / "clock.py", HERE / "matrix_products.py")
    ours = (HERE / "burnish_turn.py", *shared, *sorted(package.rglob("*.py")))
    names = ("burnish", "burnish-plain", "rate")
    rate = (HERE / "burnish_turn.py", *shared)
    found = {name: Side(name, sys.executable, HERE / "burnish_turn.py", ours) for name in names[:2]}
    found["rate"] = Side("rate", sys.executable, HERE / "burnish_turn.py", rate)
    found["TRL"] = Side("TRL", trl_python, HERE / "trl_turn.py", (HERE / "trl_turn.py", HERE / "clock.py"))
    return found


def take_turn(side: Side, job: dict[str, Any], record: Path) -> tuple[dict[str, Any], bool]:
    """Return what a turn measures, and whether it comes from the record of the same job done by the same code.

    Raises:
        TurnError: the process failed.
    """
    identity = _identity(side, job)
    if record.exists():
        kept = json.loads(record.read_text(encoding="utf-8"))
        if kept.get("identity") == identity:
            return kept, True
    began = time.time()
    result = _run(side, job, record, began)
    result |= {"identity": identity, "began": began, "wall_seconds": time.time() - began}
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    temporary.replace(record)
    return result, False


def _run(side: Side, job: dict[str, Any], record: Path, began: float) -> dict[str, Any]:
    record.parent.mkdir(parents=True, exist_ok=True)
    told, out = record.with_suffix(".job"), record.with_suffix(".out")
    told.write_text(json.dumps(job | {"spawned": began}), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    environment |= {"OMP_NUM_THREADS": str(job["threads"]), "RAYON_NUM_THREADS": str(job["threads"])}
    command = [side.python, str(side.script), str(told), str(out)]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise TurnError(f"{side.script.name} failed:\n{done.stderr.decode(errors='replace')[-3000:]}")
        return json.loads(out.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TurnError(f"{error.filename} is not there; `make bench` makes it, or give --trl_python") from error
    finally:
        told.unlink(missing_ok=True)
        out.unlink(missing_ok=True)


def _identity(side: Side, job: dict[str, Any]) -> str:
    """Return a digest of the job with the rows that it reads, and of the code that does it."""
    digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode())
    rows = [Path(job[name]) for name in ("data", "eval_data") if job.get(name)]
    for path in (*rows, *side.sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()
