"""Sentences about loading torch, counting devices, computing, and two ranks."""

from __future__ import annotations

from burnish.device.doctor.messages.message import Message

RUNNING: dict[str, Message] = {
    "load.ok": Message("torch loads in {seconds} s", "torch 可导入，用时 {seconds} 秒"),
    "load.ok_npu": Message("torch and torch_npu load in {seconds} s", "torch 与 torch_npu 可导入，用时 {seconds} 秒"),
    "load.ok_no_autoload": Message(
        "torch and torch_npu load in {seconds} s; TORCH_DEVICE_BACKEND_AUTOLOAD=0 is set, burnish imports "
        "torch_npu itself",
        "torch 与 torch_npu 可导入，用时 {seconds} 秒；已设 TORCH_DEVICE_BACKEND_AUTOLOAD=0，burnish 会自行导入 "
        "torch_npu",
    ),
    "load.fails": Message(
        "import {module}: {error} ({cause})", "import {module}：{error}（{cause}）", "{cure}", "{cure}"
    ),
    "load.crash": Message(
        "importing torch ended the process with {how}",
        "导入 torch 时进程异常结束：{how}",
        "Usually mixed versions: reinstall torch and torch_npu as a pair in a fresh environment.",
        "多为版本混装：请在新环境中成对重装 torch 与 torch_npu。",
    ),
    "load.timeout": Message(
        "importing torch and asking for devices took longer than {seconds} s",
        "导入 torch 并查询设备超过 {seconds} 秒",
        "The driver hangs, or the disk is very slow: see `npu-smi info` or `nvidia-smi`, then look at `dmesg`.",
        "驱动无响应，或磁盘极慢：请看 `npu-smi info` 或 `nvidia-smi`，再看 `dmesg`。",
    ),
    "count.ok": Message("{count} {kind} device(s): {names}, {memory}", "{count} 个 {kind} 设备：{names}，{memory}"),
    "count.cpu": Message("none; training uses the CPU", "没有加速设备，训练使用 CPU"),
    "count.none": Message(
        "torch_npu loads but sees no device",
        "torch_npu 可导入，但看不到设备",
        "See the first failure above; if there is none, look into ~/ascend/log/debug/plog.",
        "请先处理上面第一个失败项；若没有，请查看 ~/ascend/log/debug/plog。",
    ),
    "count.none_cuda": Message(
        "torch is a CUDA build but sees no GPU",
        "torch 是 CUDA 版，但看不到 GPU",
        "See the driver above, and CUDA_VISIBLE_DEVICES.",
        "请检查上面的驱动项与 CUDA_VISIBLE_DEVICES。",
    ),
    "count.hidden": Message(
        "{variable}={value} hides every device",
        "{variable}={value} 隐藏了全部设备",
        "Unset {variable}, or name the devices to use: export {variable}=0",
        "请取消 {variable}，或写明要用的设备：export {variable}=0",
    ),
    "count.fewer": Message(
        "{variable}={value} asks for {asked} device(s), torch sees {count}",
        "{variable}={value} 要求 {asked} 个设备，但 torch 只看到 {count} 个",
        "Name devices that exist (`npu-smi info` or `nvidia-smi` lists them).",
        "请只写存在的设备（见 `npu-smi info` 或 `nvidia-smi`）。",
    ),
    "count.fails": Message("asking for devices: {error} ({cause})", "查询设备：{error}（{cause}）", "{cure}", "{cure}"),
    "smoke.ok": Message(
        "{device}: equal to the CPU within {measured} (limit {limit})",
        "{device}：与 CPU 结果相差 {measured}（限值 {limit}）",
    ),
    "smoke.wrong": Message(
        "{device}: differs from the CPU by {measured} (limit {limit})",
        "{device}：与 CPU 结果相差 {measured}（限值 {limit}）",
        "Do not train on this: the device computes wrongly. Try another card, then match driver, CANN and torch_npu.",
        "请勿在此训练：设备计算结果有误。请换一张卡再试，并核对驱动、CANN 与 torch_npu 的配套。",
    ),
    "smoke.fused_wrong": Message(
        "{device}: a layer with it differs from the CPU by {measured} (limit {limit})",
        "{device}：使用该算子的一层与 CPU 结果相差 {measured}（限值 {limit}）",
        "Train without it: --fused_operators {others}; and match driver, CANN and torch_npu.",
        "训练时不用该算子：--fused_operators {others}；并核对驱动、CANN 与 torch_npu 的配套。",
    ),
    "smoke.no_bf16": Message(
        "{device} has no bfloat16; training uses fp16 with a gradient scaler",
        "{device} 不支持 bfloat16；训练将使用 fp16 与梯度缩放",
        "Nothing; watch the first steps for skipped updates.",
        "无需处理；请留意最初几步是否有更新被跳过。",
    ),
    "smoke.fails": Message("{device}: {error} ({cause})", "{device}：{error}（{cause}）", "{cure}", "{cure}"),
    "smoke.silent": Message(
        "the trial computation ended with {how}, before this was tried",
        "试算进程异常结束（{how}），未执行到此项",
        "Run again with ASCEND_LAUNCH_BLOCKING=1 (NPU) or CUDA_LAUNCH_BLOCKING=1 (GPU) to see where.",
        "请设置 ASCEND_LAUNCH_BLOCKING=1（NPU）或 CUDA_LAUNCH_BLOCKING=1（GPU）后重试，以定位出错处。",
    ),
    "ranks.ok": Message(
        "two processes agree over {backend} on {device}, {seconds} s",
        "两个进程经 {backend} 在 {device} 上结果一致，用时 {seconds} 秒",
    ),
    "ranks.wrong": Message(
        "two processes over {backend} on {device} got a wrong sum",
        "两个进程经 {backend} 在 {device} 上求和结果错误",
        "Check the links between the cards (`npu-smi info -t topo`, `nvidia-smi topo -m`), then driver and CANN.",
        "请检查卡间互联（`npu-smi info -t topo`、`nvidia-smi topo -m`），再核对驱动与 CANN。",
    ),
    "ranks.fails": Message(
        "two processes over {backend} on {device}: {error} ({cause})",
        "两个进程经 {backend} 在 {device} 上：{error}（{cause}）",
        "{cure}",
        "{cure}",
    ),
}
