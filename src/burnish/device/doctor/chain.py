"""The chain of checks, from the card to a sum over two processes, in the order in which a link breaks the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from burnish.device.doctor.cann import check_cann, check_kernels, check_python_packages
from burnish.device.doctor.findings import Both, Check, Finding
from burnish.device.doctor.hardware import check_driver, check_gpu, check_memory, check_nodes, check_smi
from burnish.device.doctor.loading import check_count, check_import
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.smoke import TRIALS, check_ranks, not_asked
from burnish.device.doctor.system import check_kernel, check_libc, check_python
from burnish.device.doctor.variables import check_variables
from burnish.device.doctor.wheels import check_listed, check_pair, check_torch_wheel


@dataclass(frozen=True, slots=True)
class Link:
    """One check with its name."""

    name: str
    """Stable, for --json."""
    label: Both
    check: Check
    computes: bool = False
    """Runs with --smoke only."""


CHAIN: tuple[Link, ...] = (
    Link("python", Both("Python", "Python"), check_python),
    Link("nodes", Both("device nodes", "设备节点"), check_nodes),
    Link("npu-smi", Both("NPU health", "NPU 健康"), check_smi),
    Link("memory", Both("NPU memory", "NPU 显存"), check_memory),
    Link("driver", Both("driver", "驱动固件"), check_driver),
    Link("gpu", Both("GPU", "GPU"), check_gpu),
    Link("cann", Both("CANN", "CANN"), check_cann),
    Link("kernels", Both("CANN operators", "CANN 算子包"), check_kernels),
    Link("cann-python", Both("CANN's Python", "CANN 依赖包"), check_python_packages),
    Link("torch", Both("torch wheel", "torch 安装包"), check_torch_wheel),
    Link("pair", Both("torch_npu", "torch_npu"), check_pair),
    Link("table", Both("version table", "版本配套"), check_listed),
    Link("import", Both("import", "导入"), check_import),
    Link("devices", Both("devices", "可用设备"), check_count),
    Link("matmul", Both("product", "矩阵乘"), TRIALS["matmul"], computes=True),
    Link("attention", Both("attention", "注意力"), TRIALS["attention"], computes=True),
    Link("bf16", Both("bfloat16", "bfloat16"), TRIALS["bf16"], computes=True),
    Link("optimizer", Both("optimizer", "优化器"), TRIALS["optimizer"], computes=True),
    Link("fused_attention", Both("fused attention", "融合注意力"), TRIALS["fused_attention"], computes=True),
    Link("fused_cross_entropy", Both("fused loss", "融合交叉熵"), TRIALS["fused_cross_entropy"], computes=True),
    Link("fused_rms_norm", Both("fused RMSNorm", "融合 RMSNorm"), TRIALS["fused_rms_norm"], computes=True),
    Link("fused_rotary", Both("fused rotary", "融合旋转编码"), TRIALS["fused_rotary"], computes=True),
    Link("fused_swiglu", Both("fused SwiGLU", "融合 SwiGLU"), TRIALS["fused_swiglu"], computes=True),
    Link("all_reduce", Both("two processes", "双进程通信"), check_ranks, computes=True),
    Link("variables", Both("environment", "环境变量"), check_variables),
    Link("glibc", Both("C library", "C 运行库"), check_libc),
    Link("kernel", Both("kernel", "系统内核"), check_kernel),
)


def examine(machine: Machine, *, smoke: bool) -> Iterator[tuple[Link, Finding]]:
    """Go down the chain; yields each finding as soon as it is there."""
    for link in CHAIN:
        check = link.check if smoke or not link.computes else not_asked
        yield link, check(machine)
