"""Checks of environment variables against each other and the machine; each rule is a small function."""

from __future__ import annotations

from burnish.device.doctor.findings import Both, Finding, failure, gravest_first, ok, warning
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.signs import ascend_absent, gpu_absent, in_container

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
_SECONDS = Both("whole seconds", "整数秒")


def check_variables(machine: Machine) -> Finding:
    """Everything in the environment that works against training, the gravest first."""
    found = [finding for rule in RULES for finding in rule(machine)]
    return gravest_first(found) if found else ok("variables.ok")


def two_allocators(machine: Machine) -> list[Finding]:
    """torch_npu refuses both allocator variables at once."""
    if ascend_absent(machine):
        return []
    both = machine.variable("PYTORCH_NPU_ALLOC_CONF") and machine.variable("PYTORCH_ALLOC_CONF")
    return [failure("variables.two_allocators")] if both else []


def blocking(machine: Machine) -> list[Finding]:
    """Waiting after every operator is for finding faults."""
    found = [
        warning("variables.blocking", variable=name)
        for name in ("ASCEND_LAUNCH_BLOCKING", "CUDA_LAUNCH_BLOCKING")
        if machine.variable(name) == "1"
    ]
    queue = machine.variable("TASK_QUEUE_ENABLE")
    if machine.variable("ASCEND_LAUNCH_BLOCKING") == "1" and queue in ("1", "2"):
        found.append(warning("variables.blocking_queue", value=queue))
    return found


def malformed_numbers(machine: Machine) -> list[Finding]:
    """Time limits and the task queue take whole numbers."""
    found: list[Finding] = []
    for name in ("HCCL_CONNECT_TIMEOUT", "HCCL_EXEC_TIMEOUT"):
        value = machine.variable(name)
        if value and not value.isdigit():
            found.append(warning("variables.bad_number", variable=name, value=value, what=_SECONDS))
    queue = machine.variable("TASK_QUEUE_ENABLE")
    if queue and queue not in ("0", "1", "2"):
        found.append(warning("variables.bad_number", variable="TASK_QUEUE_ENABLE", value=queue, what="0, 1, 2"))
    return found


def affinity(machine: Machine) -> list[Finding]:
    """Binding cores in a container conflicts with its CPU set, unless forced."""
    value = machine.variable("CPU_AFFINITY_CONF")
    bound = value not in ("", "0") and "force:1" not in value.replace(" ", "")
    return [warning("variables.affinity", value=value)] if bound and in_container(machine) else []


def saturation(machine: Machine) -> list[Finding]:
    """Overflow must become inf for the run's own checks to see it."""
    return [warning("variables.saturation")] if machine.variable("INF_NAN_MODE_ENABLE") == "0" else []


def wrong_devices(machine: Machine) -> list[Finding]:
    """Each kind of device is chosen by a variable of its own."""
    npu, gpu = machine.variable("ASCEND_RT_VISIBLE_DEVICES"), machine.variable("CUDA_VISIBLE_DEVICES")
    has_npu, has_gpu = ascend_absent(machine) is None, gpu_absent(machine) is None
    if has_npu and not has_gpu and gpu and not npu:
        names = {"set": "CUDA_VISIBLE_DEVICES", "read": "ASCEND_RT_VISIBLE_DEVICES"}
        return [warning("variables.wrong_devices", kind="NPU", value=gpu, **names)]
    return []


def left_ranks(machine: Machine) -> list[Finding]:
    """A launcher's variables that stayed behind in an interactive shell."""
    left = [name for name in _RANK_VARIABLES if machine.variable(name)]
    if not left:
        return []
    names = " ".join(left)
    return [warning("variables.left_rank", variable=left[0], value=machine.variable(left[0]), names=names)]


RULES = (two_allocators, blocking, malformed_numbers, affinity, saturation, wrong_devices, left_ranks)
