"""Machines made of a folder, a dict of variables and recorded command output."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from burnish.device.doctor.machine import Machine, Outcome

CANN = "/usr/local/Ascend/cann"
ROW = "+---------------------------+---------------+----------------------------------------------------+"
NPU_SMI = f"""
+------------------------------------------------------------------------------------------------+
| npu-smi 25.3.rc1                 Version: 25.3.rc1                                             |
{ROW}
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
{ROW.replace("-", "=")}
| 0     910B3               | OK            | 92.8        43                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3346 / 65536         |
{ROW.replace("-", "=")}
| 1     910B3               | OK            | 91.0        41                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          59891/ 65536         |
{ROW.replace("-", "=")}
{ROW}
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
{ROW.replace("-", "=")}
| No running processes found in NPU 0                                                            |
{ROW.replace("-", "=")}
| 1       0                 | 31337         | python3.11               | 56012                   |
{ROW.replace("-", "=")}
"""
PACKAGES = dict.fromkeys(
    ["decorator", "sympy", "cffi", "protobuf", "attrs", "pathlib2", "scipy", "requests", "psutil", "absl-py"], "1.0"
)
GOOD = {"measured": 1e-6, "limit": 1e-3}


def probe_output(*facts: dict[str, Any]) -> str:
    """Output of a probe, with lines of other software between."""
    return "\n".join(["[W] something else prints", *("burnish-probe " + json.dumps(fact) for fact in facts)])


class Fake:
    """A machine whose parts a test changes; `machine()` makes the Machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment: dict[str, str] = {}
        self.packages: dict[str, str] = {"torch": "2.9.0+cpu", "numpy": "2.0", "pyyaml": "6.0"}
        self.torch_build = "CPU"
        self.python = [3, 11, 9]
        self.answers: dict[str, Outcome] = {}
        self.asked: list[list[str]] = []
        self.denied: set[str] = set()
        self.wanted = "auto"
        self.kernel = "5.10.0"
        self.libc = ("glibc", "2.34")
        self.loads({"stage": "torch", "threads": 8, "processor": "aarch64"}, {"stage": "loaded", "seconds": 1.5})

    def file(self, path: str, text: str = "") -> Fake:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return self

    def remove(self, path: str) -> Fake:
        (self.root / path.lstrip("/")).unlink()
        return self

    def answer(self, command: str, output: str = "", *, error: str = "", code: int = 0, problem: str = "") -> Fake:
        self.answers[command] = Outcome(code, output, error, problem)  # pyright: ignore[reportArgumentType]
        return self

    def loads(self, *facts: dict[str, Any], **how: Any) -> Fake:
        """What the process prints that imports torch."""
        return self.answer("load.py", probe_output(*facts), **how)

    def run(self, command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
        assert timeout > 0
        self.asked.append(list(command))
        name = next((Path(word).name for word in command if word.endswith(".py")), command[0])
        if name == "packages.py" and name not in self.answers:
            facts = {"python": self.python, "versions": self.packages, "torch_build": self.torch_build}
            return Outcome(0, json.dumps(facts))
        return self.answers.get(name, Outcome(127, problem="missing"))

    def machine(self) -> Machine:
        return Machine(
            root=self.root,
            environment=self.environment,
            run=self.run,
            python="python3",
            home=self.root / "home/lin",
            kernel=self.kernel,
            libc=self.libc,
            processor="aarch64",
            wanted=self.wanted,  # pyright: ignore[reportArgumentType]
            may_use=lambda path: path.name not in self.denied,
        )

    def make_ascend(self) -> Fake:
        """Become a healthy Atlas with two 910B3, of which the second is busy and hidden, CANN 8.5 and torch 2.9."""
        for node in ("davinci0", "davinci1", "davinci_manager", "devmm_svm", "hisi_hdc"):
            self.file(f"/dev/{node}")
        self.file("/usr/local/Ascend/driver/version.info", "Version=25.3.rc1\nascendhal_version=7.35.23\n")
        self.file("/usr/local/Ascend/firmware/version.info", "Version=7.8.0.2.212\n")
        self.file(f"{CANN}/set_env.sh")
        self.file(f"{CANN}/aarch64-linux/ascend_toolkit_install.info", "package_name=x\nversion=8.5.0\n")
        self.file(f"{CANN}/lib64/libhccl.so")
        self.file(f"{CANN}/opp/built-in/op_impl/ai_core/tbe/kernel/ascend910b/ops/one.o")
        self.answer("npu-smi", NPU_SMI)
        self.packages |= {"torch-npu": "2.9.0", **PACKAGES}
        self.environment |= {
            "ASCEND_HOME_PATH": CANN,
            "ASCEND_TOOLKIT_HOME": CANN,
            "LD_LIBRARY_PATH": f"{CANN}/lib64:/usr/lib",
            "ASCEND_RT_VISIBLE_DEVICES": "0",
        }
        self.sees("npu", 1)
        self.answer("small_run.py", probe_output(*({"stage": name, **GOOD} for name in TRIALS)))
        self.answer("two_ranks.py", probe_output({"stage": "ranks", "good": True, "right": True, "seconds": 4.0}))
        return self

    def sees(self, kind: str, count: int, **facts: Any) -> Fake:
        """Let torch see devices."""
        devices = {"names": ["Ascend910B3"] * count, "total_bytes": 64 * 2**30, "bf16": True} | facts
        return self.loads(
            {"stage": "torch", "threads": 8, "processor": "aarch64"},
            {"stage": "loaded", "seconds": 3.2},
            {"stage": kind, "count": count, **devices},
        )


FUSED = ("fused_attention", "fused_cross_entropy", "fused_rms_norm", "fused_rotary", "fused_swiglu")
TRIALS = ("matmul", "attention", "bf16", "optimizer", *FUSED)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A Linux machine with Python and a CPU torch, and nothing else."""
    return Fake(tmp_path)


@pytest.fixture
def ascend(fake: Fake) -> Fake:
    """A healthy machine with Ascend cards."""
    return fake.make_ascend()


@pytest.fixture
def stages() -> Callable[..., str]:
    """Writes what a probe prints: one dict a stage."""
    return probe_output
