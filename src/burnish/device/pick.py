"""Which device a run uses, and why."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from typing import Literal

import torch

from burnish.device.npu import claim_npu, npu_module, set_compiling
from burnish.device.vendor import load_torch_npu, loading_problem
from burnish.errors import ConfigError

DeviceKind = Literal["npu", "cuda", "cpu"]
_VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}


@dataclass(frozen=True, slots=True)
class Device:
    """The device of this process."""

    kind: DeviceKind
    torch_device: torch.device
    reason: str
    """One line for the user: what was chosen and why."""
    settings: str = ""
    """One line on what was set for the device; empty where nothing was."""

    @property
    def is_accelerator(self) -> bool:
        return self.kind != "cpu"


def pick_device(requested: str = "auto", *, num_threads: int | None = None, jit_compile: bool = False) -> Device:
    """Choose the first of npu, cuda and cpu that works, or the one that was asked for.

    Args:
        requested: auto, npu, cuda or cpu.
        num_threads: CPU threads for torch; None keeps its choice.
        jit_compile: let an NPU compile operators for each new shape.

    Raises:
        ConfigError: the requested device is not there, with what was found instead; or fewer devices than processes.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    problems = {"npu": npu_problem, "cuda": cuda_problem}
    if requested in problems:
        problem = problems[requested]()
        if problem:
            raise ConfigError(f"--device {requested}: {problem}\nUse --device auto to take what this machine has.")
        return _claim(requested, "as asked", jit_compile)
    if requested == "cpu":
        return _claim("cpu", "as asked", jit_compile)
    found: list[str] = []
    for kind, problem_of in problems.items():
        problem = problem_of()
        if not problem:
            return _claim(kind, "; ".join(["the first that works", *found]), jit_compile)
        found.append(f"no {kind}: {problem}")
    return _claim("cpu", "; ".join(found), jit_compile)


def npu_problem() -> str:
    """Say why no Ascend NPU can be used; empty where one can. Never raises, whatever is half installed."""
    load_torch_npu()
    if loading_problem():
        return f"torch_npu cannot be loaded ({loading_problem()}); `burnish doctor` names the cure"
    if importlib.util.find_spec("torch_npu") is None:
        return "torch_npu is not installed"
    try:
        return "" if npu_module().is_available() else "torch_npu sees no device; `burnish doctor` says why"
    except Exception as error:  # whatever a broken driver stack raises, the other devices still work
        return f"torch_npu fails ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def cuda_problem() -> str:
    """Say why no CUDA GPU can be used; empty where one can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return "this torch is built without it"
    return "" if torch.cuda.is_available() else "the driver sees no device"


def _check_index(kind: str, index: int) -> None:
    """Raise ConfigError for a process of a launch that finds no device of its number."""
    count = getattr(torch, kind).device_count()
    if index >= count:
        raise ConfigError(
            f"process {index} of this machine wants {kind}:{index}, and only {count} can be seen.\n"
            f"Launch one process a device, or show more devices with {_VISIBLE[kind]}."
        )


def _claim(kind: str, why: str, jit_compile: bool) -> Device:
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if kind != "cpu":
        _check_index(kind, index)
    if kind == "npu":
        settings = set_compiling(jit_compile=jit_compile)
        return Device("npu", torch.device("npu", index), f"npu:{index}, {claim_npu(index)} ({why})", settings)
    if kind == "cuda":
        torch.cuda.set_device(index)
        memory = f"{torch.cuda.mem_get_info(index)[1] / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        reason = f"cuda:{index}, {torch.cuda.get_device_name(index)}, {memory} ({why})"
        return Device("cuda", torch.device("cuda", index), reason)
    threads = torch.get_num_threads()
    return Device("cpu", torch.device("cpu"), f"cpu, {platform.machine()}, {threads} threads ({why})")
