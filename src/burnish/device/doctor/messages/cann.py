"""Sentences about CANN, its operator packages and what Python packages it wants."""

from __future__ import annotations

from burnish.device.doctor.messages.message import Message

CANN: dict[str, Message] = {
    "cann.ok": Message("CANN {version} at {home}", "CANN {version}，位于 {home}"),
    "cann.absent": Message(
        "no CANN: ASCEND_HOME_PATH is not set, and there is none in /usr/local/Ascend or ~/Ascend",
        "没有 CANN：未设置 ASCEND_HOME_PATH，/usr/local/Ascend 与 ~/Ascend 下也没有安装",
        "Install the CANN toolkit and its ops (kernels) package for your chip, or use a CANN container image.",
        "请安装 CANN toolkit 与对应芯片的 ops（kernels）算子包，或使用 CANN 容器镜像。",
    ),
    "cann.not_sourced": Message(
        "CANN {version} is installed, but its environment is not loaded",
        "已安装 CANN {version}，但没有加载它的环境变量",
        "source {script}",
        "source {script}",
    ),
    "cann.home_missing": Message(
        "{variable}={home}, and there is no such folder",
        "{variable}={home}，但该目录不存在",
        "Unset it and load the environment of the CANN that is there: source {script}",
        "请取消该变量，并加载现有 CANN 的环境：source {script}",
    ),
    "cann.half_loaded": Message(
        "CANN {version} at {home}, but LD_LIBRARY_PATH does not name its lib64: the environment is half loaded",
        "CANN {version}，位于 {home}，但 LD_LIBRARY_PATH 中没有它的 lib64：环境只加载了一半",
        "source {script}",
        "source {script}",
    ),
    "cann.two": Message(
        "ASCEND_HOME_PATH is {one}, ASCEND_TOOLKIT_HOME is {other}: two CANNs are mixed",
        "ASCEND_HOME_PATH 为 {one}，ASCEND_TOOLKIT_HOME 为 {other}：混用了两套 CANN",
        "Open a fresh shell and source one set_env.sh only.",
        "请打开新的终端，只 source 一个 set_env.sh。",
    ),
    "cann.old": Message(
        "CANN {version} at {home} is older than 8.0.RC1",
        "CANN {version}（位于 {home}）低于 8.0.RC1",
        "Install the CANN that belongs to your torch_npu (table in docs/en/ascend.md).",
        "请安装与 torch_npu 配套的 CANN（配套表见 docs/zh/ascend.md）。",
    ),
    "cann.unknown": Message(
        "CANN at {home}, version unknown (no ascend_*_install.info, no version.cfg)",
        "CANN 位于 {home}，版本未知（没有 ascend_*_install.info 与 version.cfg）",
        "Nothing by itself; if the import below fails, reinstall CANN.",
        "本身无需处理；若下面导入失败，请重装 CANN。",
    ),
    "kernels.ok": Message("prebuilt operators for {chips}", "已有预编译算子：{chips}"),
    "kernels.absent": Message(
        "no prebuilt operators under {folder}; without them every operator is compiled at run time, or fails",
        "{folder} 下没有预编译算子；没有它们，算子会在运行时逐个编译，或直接失败",
        "Install the CANN ops (kernels) package of the same version for your chip.",
        "请安装同版本、对应芯片的 CANN ops（kernels）算子包。",
    ),
    "kernels.other_chip": Message(
        "prebuilt operators for {have}, but this card is {chip} and needs {wanted}",
        "预编译算子是为 {have} 准备的，而本机是 {chip}，需要 {wanted}",
        "Install the CANN ops (kernels) package for {wanted}.",
        "请安装 {wanted} 的 CANN ops（kernels）算子包。",
    ),
    "deps.ok": Message("all of CANN's Python packages are there", "CANN 所需的 Python 包齐全"),
    "deps.missing": Message(
        "CANN's Python packages are missing in this environment: {names} (CANN then fails with EH9999 or 500001)",
        "当前环境缺少 CANN 所需的 Python 包：{names}（会导致 CANN 报 EH9999 或 500001）",
        "python -m pip install {install}",
        "python -m pip install {install}",
    ),
    "deps.required": Message(
        "torch_npu needs {names}, not installed here",
        "torch_npu 依赖 {names}，当前环境没有安装",
        "python -m pip install {install}",
        "python -m pip install {install}",
    ),
}
