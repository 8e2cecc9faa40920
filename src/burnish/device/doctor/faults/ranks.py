"""Texts of several processes that lose each other."""

from __future__ import annotations

from burnish.device.doctor.faults.fault import Fault, fault
from burnish.device.doctor.findings import Both

RANKS: tuple[Fault, ...] = (
    fault(
        "link_timeout",
        r"\bEI0006\b|Getting socket times out",
        cause=Both(
            "while ranks linked up (120 s), one was late, dead or out of reach",
            "建链阶段（120 秒）有 rank 迟到、已退出或网络不通",
        ),
        cure=Both(
            "Look for the first error in the other ranks' logs; if a rank only prepares data for long, raise "
            "HCCL_CONNECT_TIMEOUT (seconds) to the same value on all ranks.",
            "请先查看其他 rank 日志中最早的错误；若只是某个 rank 准备数据较久，请在所有 rank 上把 "
            "HCCL_CONNECT_TIMEOUT（秒）调大到同一值。",
        ),
    ),
    fault(
        "notify_timeout",
        r"\bEI0002\b|Notify wait timeout",
        codes="507048",
        cause=Both(
            "a rank died, or ranks have different numbers of steps, and the others waited (1836 s by default)",
            "有 rank 已退出，或各 rank 的步数不一致，其余 rank 等待超时（默认 1836 秒）",
        ),
        cure=Both(
            "Look for the first error in the other ranks' logs; raise HCCL_EXEC_TIMEOUT (seconds) on all ranks "
            "only if a "
            "step is really that slow.",
            "请先查看其他 rank 日志中最早的错误；只有单步确实很慢时，才在所有 rank 上调大 HCCL_EXEC_TIMEOUT（秒）。",
        ),
    ),
    fault(
        "port",
        r"Address already in use|EADDRINUSE|Socket Timeout|client socket has timed out",
        cause=Both(
            "the ranks cannot meet: the port is taken by another run, or the first rank is not reachable",
            "各 rank 无法会合：端口被其他任务占用，或主 rank 无法访问",
        ),
        cure=Both(
            "export MASTER_PORT=<a free port>, and see that MASTER_ADDR is reachable from every machine.",
            "export MASTER_PORT=<空闲端口>，并确认每台机器都能访问 MASTER_ADDR。",
        ),
    ),
    fault(
        "fork",
        r"Cannot re-initialize NPU in forked subprocess|Cannot re-initialize CUDA in forked subprocess",
        cause=Both(
            "a process was forked after the device was first used",
            "设备初始化之后又 fork 了子进程",
        ),
        cure=Both(
            "Prepare the data before touching the device, or start processes with the spawn method.",
            "请在使用设备之前完成数据处理，或用 spawn 方式启动子进程。",
        ),
    ),
    fault(
        "heartbeat",
        r"lost heartbeat",
        codes="507010|107020|507901",
        cause=Both("the connection to the card broke off", "与该卡的连接中断"),
        cure=Both(
            "See `npu-smi info` and `dmesg`; reset the card or reboot, and run `burnish doctor --smoke`.",
            "请查看 `npu-smi info` 与 `dmesg`；复位该卡或重启，然后运行 `burnish doctor --smoke`。",
        ),
    ),
)
