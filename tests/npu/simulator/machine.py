"""A simulated machine with NPUs: an environment for subprocesses, in which `import torch` finds a card."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npu.simulator.hook import LAYER_VARIABLE
from npu.simulator.stand_in import build_stand_in
from npu.simulator.wheel import fetch_wheel

TESTS = Path(__file__).parents[2]
SOURCE = TESTS.parent / "src"
START = Path(__file__).parent / "start"
SECONDS = 540
"""Patience with a program: many times what it takes, and less than pytest has with a test."""


@dataclass(frozen=True, slots=True)
class SimulatedMachine:
    """Runs programs as a machine with NPUs would; any child of them (torchrun's ranks too) sees the same machine."""

    variables: dict[str, str]
    paths: tuple[Path, ...] = field(default=())

    def with_variables(self, **variables: str) -> SimulatedMachine:
        """The same machine with more environment variables."""
        return replace(self, variables=self.variables | variables)

    def environment(self) -> dict[str, str]:
        """The whole environment of a process on this machine."""
        paths = [START, *self.paths, SOURCE, TESTS]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        return {
            **kept,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            LAYER_VARIABLE: "1",
            **self.variables,
        }

    def python(self, *words: Any, check: bool = True, timeout: int = SECONDS) -> subprocess.CompletedProcess[str]:
        """Run Python with these words (`-c`, code; `-m`, module, …); fails the test unless it ends well."""
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def torchrun(self, ranks: int, *words: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program (a path, or `-m` and a module, and its words) with so many ranks, one device each."""
        cards = self.with_variables(SIMULATED_NPU_COUNT=str(ranks))
        launch = ("-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", ranks)
        return cards.python(*launch, *words, check=check)

    def burnish(self, *words: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command as a user of this machine does."""
        return self.python("-m", "burnish", *words, check=check)


def simulate() -> SimulatedMachine:
    """The machine with the vendor's real wheel.

    Raises:
        CannotSimulate: the wheel or a C compiler can't be had here.
    """
    wheel = fetch_wheel()
    stand_in = build_stand_in(wheel)
    home = stand_in / "home"
    for part in ("opp", "runtime", "compiler"):
        (home / part).mkdir(parents=True, exist_ok=True)
    return SimulatedMachine(
        variables={
            "LD_LIBRARY_PATH": str(stand_in),
            "ASCEND_HOME_PATH": str(home),
            "ASCEND_OPP_PATH": str(home / "opp"),
            # An operator that the wheel has no kernel for is an error here, not a slow detour over the CPU.
            "TORCH_NPU_FALLBACK_CPU_DISABLE": "1",
        },
        paths=(wheel,),
    )


def read_launches(folder: Path) -> Counter[str]:
    """Operators that all processes sent to the device while SIMULATED_NPU_LOG named this folder."""
    import json

    total: Counter[str] = Counter()
    for file in sorted(folder.glob("*.json")):
        total.update(json.loads(file.read_text()))
    return total
