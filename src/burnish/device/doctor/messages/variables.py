"""Sentences about environment variables that contradict each other or the machine."""

from __future__ import annotations

from burnish.device.doctor.messages.message import Message

VARIABLES: dict[str, Message] = {
    "variables.ok": Message("nothing set that works against training", "没有妨碍训练的环境变量"),
    "variables.two_allocators": Message(
        "PYTORCH_NPU_ALLOC_CONF and PYTORCH_ALLOC_CONF are both set; torch_npu ends with an error then",
        "同时设置了 PYTORCH_NPU_ALLOC_CONF 与 PYTORCH_ALLOC_CONF，torch_npu 会因此报错退出",
        "unset PYTORCH_ALLOC_CONF",
        "unset PYTORCH_ALLOC_CONF",
    ),
    "variables.blocking": Message(
        "{variable}=1 makes every operator wait: for finding faults only",
        "{variable}=1 会让每个算子同步执行，仅用于定位问题",
        "unset {variable} before a long run",
        "长时间训练前请 unset {variable}",
    ),
    "variables.blocking_queue": Message(
        "ASCEND_LAUNCH_BLOCKING=1 turns off what TASK_QUEUE_ENABLE={value} asks for",
        "ASCEND_LAUNCH_BLOCKING=1 会使 TASK_QUEUE_ENABLE={value} 失效",
        "unset ASCEND_LAUNCH_BLOCKING",
        "unset ASCEND_LAUNCH_BLOCKING",
    ),
    "variables.bad_number": Message(
        "{variable}={value} is not {what}",
        "{variable}={value} 不是{what}",
        "unset {variable}, or give it {what}",
        "请 unset {variable}，或改为{what}",
    ),
    "variables.affinity": Message(
        "CPU_AFFINITY_CONF={value} in a container: binding cores conflicts with the container's own CPU set",
        "容器内设置了 CPU_AFFINITY_CONF={value}：绑核会与容器自身的 CPU 限制冲突",
        "unset CPU_AFFINITY_CONF",
        "unset CPU_AFFINITY_CONF",
    ),
    "variables.saturation": Message(
        "INF_NAN_MODE_ENABLE=0: overflows saturate instead of becoming inf, and no check can see them",
        "INF_NAN_MODE_ENABLE=0：溢出会饱和而不变为 inf，任何检查都无法发现",
        "unset INF_NAN_MODE_ENABLE",
        "unset INF_NAN_MODE_ENABLE",
    ),
    "variables.wrong_devices": Message(
        "{set} is set, but {kind} devices are chosen by {read}",
        "设置了 {set}，但 {kind} 设备由 {read} 选择",
        "export {read}={value}",
        "export {read}={value}",
    ),
    "variables.left_rank": Message(
        "{variable}={value} is left in this shell: a plain run would take it for its own rank",
        "当前终端残留 {variable}={value}：单进程训练会误以为这是自己的 rank",
        "unset {names}",
        "unset {names}",
    ),
}
