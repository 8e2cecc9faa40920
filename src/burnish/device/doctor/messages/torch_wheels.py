"""Sentences about the wheels of torch and torch_npu, and their CANN."""

from __future__ import annotations

from burnish.device.doctor.messages.message import Message

TORCH_WHEELS: dict[str, Message] = {
    "packages.unread": Message(
        "{python} cannot list its packages: {error}",
        "{python} 无法列出已安装的包：{error}",
        "Repair or remake the Python environment.",
        "请修复或重建 Python 环境。",
    ),
    "wheel.missing": Message(
        "torch is not installed in this environment",
        "当前环境没有安装 torch",
        "python -m pip install -r requirements/run.txt (on Ascend: requirements/ascend.txt)",
        "python -m pip install -r requirements/run.txt（昇腾机器用 requirements/ascend.txt）",
    ),
    "wheel.ok": Message("torch {version}, {build} build", "torch {version}，{build} 版"),
    "wheel.old": Message(
        "torch {version} is older than 2.7, the oldest that burnish runs on",
        "torch {version} 低于 burnish 支持的最低版本 2.7",
        "Upgrade torch (on Ascend together with torch_npu).",
        "请升级 torch（昇腾机器上与 torch_npu 一起升级）。",
    ),
    "wheel.two_accelerators": Message(
        "torch {version} is a {build} build; torch_npu refuses to load beside it (ERR00007)",
        "torch {version} 是 {build} 版，torch_npu 会拒绝与它同时加载（ERR00007）",
        "python -m pip install --force-reinstall torch=={release} --index-url https://download.pytorch.org/whl/cpu",
        "python -m pip install --force-reinstall torch=={release} --index-url https://download.pytorch.org/whl/cpu",
    ),
    "wheel.cpu_on_gpu": Message(
        "torch {version} is the CPU build, on a machine with an NVIDIA GPU: the GPU will not be used",
        "机器有 NVIDIA GPU，但 torch {version} 是 CPU 版：不会使用 GPU",
        "Install the CUDA build of the same torch (pytorch.org, Get Started).",
        "请安装同版本的 CUDA 版 torch（见 pytorch.org 的 Get Started）。",
    ),
    "pair.ok": Message("torch {torch}, torch_npu {torch_npu}", "torch {torch}，torch_npu {torch_npu}"),
    "pair.none": Message(
        "torch_npu is not installed",
        "没有安装 torch_npu",
        "python -m pip install torch-npu=={release} (the release must equal torch's)",
        "python -m pip install torch-npu=={release}（版本号必须与 torch 一致）",
    ),
    "pair.mismatch": Message(
        "torch {torch} and torch_npu {torch_npu} do not belong together",
        "torch {torch} 与 torch_npu {torch_npu} 不配套",
        "python -m pip install torch-npu=={release} (or the torch {npu_release} that this torch_npu is built for)",
        "python -m pip install torch-npu=={release}（或安装与该 torch_npu 配套的 torch {npu_release}）",
    ),
    "pair.patch": Message(
        "torch {torch} and torch_npu {torch_npu} differ in the last number",
        "torch {torch} 与 torch_npu {torch_npu} 的末位版本号不同",
        "python -m pip install torch-npu=={release}",
        "python -m pip install torch-npu=={release}",
    ),
    "listed.ok": Message(
        "torch_npu {torch_npu} and CANN {cann} are a pair of the vendor's table",
        "torch_npu {torch_npu} 与 CANN {cann} 在官方配套表中",
    ),
    "listed.older": Message(
        "CANN {cann} is older than the {listed} that torch_npu {torch_npu} was released for",
        "CANN {cann} 低于 torch_npu {torch_npu} 配套的 {listed}",
        "Install CANN {listed}, or a torch and torch_npu of CANN {cann} (table in docs/en/ascend.md).",
        "请安装 CANN {listed}，或改用与 CANN {cann} 配套的 torch 与 torch_npu（配套表见 docs/zh/ascend.md）。",
    ),
    "listed.newer": Message(
        "CANN {cann} is newer than the {listed} that the vendor lists for torch_npu {torch_npu}",
        "CANN {cann} 高于官方配套表中 torch_npu {torch_npu} 对应的 {listed}",
        "If the checks below pass, nothing; otherwise take a torch_npu of CANN {cann} (table in docs/en/ascend.md).",
        "若下面的检查通过则无需处理；否则请改用与 CANN {cann} 配套的 torch_npu（配套表见 docs/zh/ascend.md）。",
    ),
    "listed.not_yet": Message(
        "the vendor's table (2026-08) has no row for torch_npu {torch_npu}; CANN {cann} is at least its newest",
        "官方配套表（2026-08）尚无 torch_npu {torch_npu}；CANN {cann} 不低于表中最新版本",
    ),
    "listed.unknown": Message(
        "the vendor's table has no row for torch_npu {torch_npu}", "官方配套表中没有 torch_npu {torch_npu}"
    ),
    "listed.no_version": Message(
        "versions of CANN and torch_npu are not both known", "CANN 与 torch_npu 的版本未能同时得知"
    ),
}
