"""Texts that only say that something else went wrong; explained after all others."""

from __future__ import annotations

from burnish.device.doctor.faults.fault import Fault, fault
from burnish.device.doctor.findings import Both

GENERIC: tuple[Fault, ...] = (
    fault(
        "exit_hook",
        r"ERR99999|UNKNOWN applicaiton exception|UNKNOWN application exception",
        cause=Both(
            "torch_npu prints this after any uncaught Python exception; it says nothing about the NPU",
            "任何未捕获的 Python 异常之后 torch_npu 都会打印这一行，它与 NPU 本身无关",
        ),
        cure=Both("Read the Python traceback above it.", "请看它上方的 Python 异常信息。"),
        generic=True,
    ),
    fault(
        "inner_error",
        r"\bE[A-Z1-9]9999\b|Inner Error",
        cause=Both(
            "CANN's general error; the cause is in the lines below it and in the plog",
            "CANN 的通用内部错误，原因在其后的几行与 plog 中",
        ),
        cure=Both(
            "Read the lines after it, and the newest file under ~/ascend/log/debug/plog (or $ASCEND_PROCESS_LOG_PATH).",
            "请看其后的几行，以及 ~/ascend/log/debug/plog（或 $ASCEND_PROCESS_LOG_PATH）下最新的文件。",
        ),
        generic=True,
    ),
    fault(
        "collective_code",
        r"\bEI\d{4}\b",
        cause=Both("an error of HCCL, the collective communication", "集合通信（HCCL）报错"),
        cure=Both(
            "Read the lines after it, then the first error in the other ranks' logs.",
            "请看其后的几行，再看其他 rank 日志中最早的错误。",
        ),
        generic=True,
    ),
    fault(
        "operator_code",
        r"\bEZ\d{4}\b",
        cause=Both("an error of an operator", "算子报错"),
        cure=Both(
            "Read the lines after it: they name the operator, and the dtype or shape that it refuses.",
            "请看其后的几行，其中会给出算子名及其不支持的数据类型或形状。",
        ),
        generic=True,
    ),
)
