"""Sentences about device nodes, npu-smi, drivers and GPUs."""

from __future__ import annotations

from burnish.device.doctor.messages.message import Message

HARDWARE: dict[str, Message] = {
    "nodes.ok": Message("{count} NPU node(s), {nodes}", "{count} 个 NPU 设备节点：{nodes}"),
    "nodes.none": Message(
        "no /dev/davinci*: the driver is not loaded",
        "没有 /dev/davinci*：驱动未加载",
        "Install the NPU driver and firmware (Ascend HDK), reboot, and see that `npu-smi info` lists the card.",
        "请安装 NPU 驱动与固件（Ascend HDK）并重启，确认 `npu-smi info` 能列出该卡。",
    ),
    "nodes.none_but_card": Message(
        "{cards} Ascend card(s) on the PCI bus, but no /dev/davinci*: the driver is not loaded",
        "PCI 总线上有 {cards} 张昇腾卡，但没有 /dev/davinci*：驱动未加载",
        "Install the NPU driver and firmware (Ascend HDK), reboot, and see that `npu-smi info` lists the card.",
        "请安装 NPU 驱动与固件（Ascend HDK）并重启，确认 `npu-smi info` 能列出该卡。",
    ),
    "nodes.none_in_container": Message(
        "no /dev/davinci* in this container",
        "容器内没有 /dev/davinci*",
        "Start it with --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm "
        "--device /dev/hisi_hdc (docs/en/ascend.md has the whole command).",
        "启动容器时请加 --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm "
        "--device /dev/hisi_hdc（完整命令见 docs/zh/ascend.md）。",
    ),
    "nodes.no_managers": Message(
        "{missing} missing beside /dev/davinci*",
        "有 /dev/davinci*，但缺少 {missing}",
        "In a container add a --device line for each of them; on the host reinstall the driver.",
        "容器内请为每一个各加一条 --device；主机上请重装驱动。",
    ),
    "nodes.denied": Message(
        "this user may not open {nodes}",
        "当前用户无权打开 {nodes}",
        "Add the user to the driver's group (usually: sudo usermod -aG HwHiAiUser $USER) and log in again.",
        "请把用户加入驱动所属组（通常为：sudo usermod -aG HwHiAiUser $USER）后重新登录。",
    ),
    "smi.ok": Message("{chips}, all healthy; driver tool {version}", "{chips}，健康状态正常；工具版本 {version}"),
    "smi.missing": Message(
        "npu-smi is not there; health and free memory stay unknown",
        "找不到 npu-smi，无法得知健康状态与剩余显存",
        "In a container add -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi -v /usr/local/dcmi:/usr/local/dcmi; "
        "on the host it comes with the driver.",
        "容器内请加 -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi -v /usr/local/dcmi:/usr/local/dcmi；"
        "主机上它随驱动安装。",
    ),
    "smi.timeout": Message(
        "npu-smi info gave no answer in {seconds} s",
        "npu-smi info 在 {seconds} 秒内没有返回",
        "The driver hangs: look for processes stuck on the card, then reset the card or reboot.",
        "驱动无响应：请检查是否有进程卡在该卡上，然后复位该卡或重启机器。",
    ),
    "smi.fails": Message(
        "npu-smi info fails: {error} ({cause})", "npu-smi info 失败：{error}（{cause}）", "{cure}", "{cure}"
    ),
    "smi.unread": Message(
        "npu-smi info answered in a form that is not known here; health and memory stay unknown",
        "npu-smi info 的输出格式无法识别，健康状态与显存未知",
        "Read `npu-smi info` yourself, and please report its output.",
        "请自行查看 `npu-smi info`，并欢迎反馈其输出。",
    ),
    "smi.unhealthy": Message(
        "health is not OK: {chips}",
        "健康状态异常：{chips}",
        "See `npu-smi info -t health -i <card>`; leave the card out with ASCEND_RT_VISIBLE_DEVICES, or reset it.",
        "请查看 `npu-smi info -t health -i <卡号>`；可用 ASCEND_RT_VISIBLE_DEVICES 排除该卡，或复位该卡。",
    ),
    "memory.ok": Message(
        "HBM free: {free} (used by driver and HCCL included)", "HBM 剩余：{free}（驱动与 HCCL 的占用已计入）"
    ),
    "memory.busy": Message(
        "HBM is in use: {busy}",
        "HBM 已被占用：{busy}",
        "Wait for or end those processes, or choose free chips with ASCEND_RT_VISIBLE_DEVICES.",
        "请等待或结束这些进程，或用 ASCEND_RT_VISIBLE_DEVICES 选择空闲的芯片。",
    ),
    "memory.unknown": Message("npu-smi did not tell", "npu-smi 未给出"),
    "driver.ok": Message("driver {driver}, firmware {firmware}", "驱动 {driver}，固件 {firmware}"),
    "driver.no_firmware": Message(
        "driver {driver} (no firmware file here; usual in a container)",
        "驱动 {driver}（此处无固件版本文件，容器内常见）",
    ),
    "driver.unknown": Message(
        "no version file at /usr/local/Ascend/driver/version.info",
        "没有 /usr/local/Ascend/driver/version.info 版本文件",
        "In a container mount /usr/local/Ascend/driver; on the host install the driver (Ascend HDK).",
        "容器内请挂载 /usr/local/Ascend/driver；主机上请安装驱动（Ascend HDK）。",
    ),
    "gpu.ok": Message("{gpus}; driver {driver}", "{gpus}；驱动 {driver}"),
    "gpu.missing": Message(
        "an NVIDIA device node, but no nvidia-smi",
        "有 NVIDIA 设备节点，但没有 nvidia-smi",
        "Install the NVIDIA driver; in a container use the NVIDIA container toolkit (--gpus all).",
        "请安装 NVIDIA 驱动；容器内请使用 NVIDIA container toolkit（--gpus all）。",
    ),
    "gpu.none": Message(
        "no NVIDIA device node and no nvidia-smi",
        "没有 NVIDIA 设备节点，也没有 nvidia-smi",
        "Install the NVIDIA driver; in a container use the NVIDIA container toolkit (--gpus all).",
        "请安装 NVIDIA 驱动；容器内请使用 NVIDIA container toolkit（--gpus all）。",
    ),
    "gpu.fails": Message(
        "nvidia-smi fails: {error}",
        "nvidia-smi 失败：{error}",
        "Reload or reinstall the NVIDIA driver; after an update of the driver, reboot.",
        "请重新加载或重装 NVIDIA 驱动；驱动升级后需要重启。",
    ),
    "gpu.timeout": Message(
        "nvidia-smi gave no answer in {seconds} s",
        "nvidia-smi 在 {seconds} 秒内没有返回",
        "The driver hangs: look for processes stuck on the GPU, then reset it or reboot.",
        "驱动无响应：请检查是否有进程卡在 GPU 上，然后复位或重启。",
    ),
}
