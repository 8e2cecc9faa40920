"""Sentences about Python, the C library, the kernel, and why checks are skipped."""

from __future__ import annotations

from burnish.device.doctor.messages.message import Message

SYSTEM: dict[str, Message] = {
    "skip.no_ascend": Message(
        "no sign of an Ascend NPU (no device node, no CANN, no torch_npu); --device npu checks all the same",
        "没有发现昇腾 NPU 的迹象（无设备节点、无 CANN、无 torch_npu）；加 --device npu 可强制检查",
    ),
    "skip.other_device": Message("not asked for: --device {device}", "未要求检查：--device {device}"),
    "skip.no_gpu": Message("no sign of an NVIDIA GPU", "没有发现 NVIDIA GPU 的迹象"),
    "skip.no_npu": Message("only an NPU has them", "仅 NPU 有融合算子"),
    "skip.plain_operators": Message(
        "not listed for cards without bfloat16; training does without", "厂商未列出不支持 bfloat16 的卡；训练时不使用"
    ),
    "skip.not_linux": Message("not a Linux machine", "不是 Linux 系统"),
    "skip.no_torch": Message("needs a torch that can be imported", "需要先能导入 torch"),
    "skip.earlier": Message("needs what failed above", "依赖上面失败的检查项"),
    "skip.no_smoke": Message("computes on the device: add --smoke", "需要在设备上实际计算：加 --smoke"),
    "skip.no_cann": Message("no CANN to look into", "没有可检查的 CANN"),
    "python.ok": Message("Python {version}, {processor}", "Python {version}，{processor}"),
    "python.old": Message(
        "Python {version} is too old for burnish",
        "Python {version} 过旧，burnish 无法使用",
        "Make an environment with Python 3.11, 3.12 or 3.13.",
        "请新建 Python 3.11、3.12 或 3.13 的环境。",
    ),
    "python.no_wheel": Message(
        "Python {version}: torch_npu has no wheel for it (3.10 to 3.14 have)",
        "Python {version}：torch_npu 没有对应的安装包（仅 3.10 至 3.14）",
        "Make an environment with Python 3.11, 3.12 or 3.13.",
        "请新建 Python 3.11、3.12 或 3.13 的环境。",
    ),
    "libc.ok": Message("glibc {version}", "glibc {version}"),
    "libc.old": Message(
        "glibc {version}, but the wheels of torch and torch_npu need 2.28 or newer",
        "glibc {version}，而 torch 与 torch_npu 的安装包要求 2.28 或更新",
        "Use a newer system or a container (ubuntu 22.04, openEuler 22.03 or later).",
        "请使用更新的系统，或使用容器（ubuntu 22.04、openEuler 22.03 及以后）。",
    ),
    "libc.other": Message(
        "the C library is not glibc; the wheels of torch and torch_npu are built for glibc 2.28",
        "C 运行库不是 glibc；torch 与 torch_npu 的安装包基于 glibc 2.28",
        "Use a system or a container with glibc (ubuntu, openEuler).",
        "请使用带 glibc 的系统或容器（ubuntu、openEuler）。",
    ),
    "kernel.ok": Message("Linux {release}", "Linux {release}"),
    "kernel.old": Message(
        'Linux {release}: accelerate will print "Detected kernel version …" (it recommends 5.5); usual on EulerOS, '
        "openEuler and Kylin, nothing to do",
        "Linux {release}：accelerate 会提示 “Detected kernel version …”（它建议 5.5 以上）；"
        "EulerOS、openEuler、麒麟上都如此，无需处理",
    ),
    "end.uses": Message("Training would use {device}, {precision}.", "训练将使用 {device}，精度 {precision}。"),
    "end.unusable": Message(
        "Training cannot start on this machine yet.",
        "目前在本机还无法开始训练。",
    ),
    "end.cpu_instead": Message(
        "Until that is cured, training would use the CPU.",
        "在修复之前，训练只会使用 CPU。",
    ),
    "end.first": Message("Do this first ({label}): {cure}", "请先处理（{label}）：{cure}"),
    "end.well": Message(
        "Nothing to cure. Next: burnish dpo (the embedded demo), or burnish doctor --smoke to compute on the device.",
        "没有需要处理的问题。下一步：burnish dpo（内置示例），或用 burnish doctor --smoke 在设备上试算。",
    ),
    "end.well_smoke": Message(
        "Nothing to cure. Next: burnish dpo (the embedded demo).",
        "没有需要处理的问题。下一步：burnish dpo（内置示例）。",
    ),
    "explain.unknown": Message(
        "No text here that burnish knows.",
        "其中没有 burnish 认识的错误信息。",
        "Look for the first error in the log; on an NPU also into ~/ascend/log/debug/plog. Then run burnish doctor.",
        "请查找日志中最早的错误；NPU 上还可查看 ~/ascend/log/debug/plog。然后运行 burnish doctor。",
    ),
    "explain.empty": Message(
        "There is no text to explain.",
        "没有可解释的内容。",
        'burnish doctor --explain "TEXT", or: cat LOG | burnish doctor --explain -',
        'burnish doctor --explain "文本"，或：cat 日志 | burnish doctor --explain -',
    ),
}
