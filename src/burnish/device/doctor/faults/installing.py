"""Texts of an installation that does not fit together: seen before the first computation."""

from __future__ import annotations

from burnish.device.doctor.faults.fault import Fault, fault
from burnish.device.doctor.findings import Both

_SOURCE_IT = Both(
    "source /usr/local/Ascend/cann/set_env.sh (CANN 8.5 and later) or "
    "/usr/local/Ascend/ascend-toolkit/set_env.sh (before). "
    "To use torch without the NPU: export TORCH_DEVICE_BACKEND_AUTOLOAD=0",
    "source /usr/local/Ascend/cann/set_env.sh（CANN 8.5 及以后）或 "
    "/usr/local/Ascend/ascend-toolkit/set_env.sh（更早）。"
    "若只用 CPU 版 torch：export TORCH_DEVICE_BACKEND_AUTOLOAD=0",
)

INSTALLING: tuple[Fault, ...] = (
    fault(
        "atb_mismatch",
        r"^(?=.*undefined symbol)(?=.*(libop_plugin_atb|libtbe_adapter|libatb))",
        cause=Both(
            "NNAL (ATB) is not of the same release as torch_npu and CANN",
            "NNAL（ATB）的版本与 torch_npu、CANN 不一致",
        ),
        cure=Both(
            "Install the NNAL of the same CANN release, and source its nnal/atb/set_env.sh after CANN's.",
            "请安装与 CANN 同版本的 NNAL，并在 CANN 的 set_env.sh 之后 source nnal/atb/set_env.sh。",
        ),
    ),
    fault(
        "pair_mismatch",
        r"^(?=.*undefined symbol)(?=.*torch_npu)|module 'torch_npu' has no attribute '_autoload'",
        cause=Both(
            "torch and torch_npu are of different releases (or torch_npu was imported before torch)",
            "torch 与 torch_npu 版本不一致（或导入顺序不对：torch_npu 先于 torch）",
        ),
        cure=Both(
            "Reinstall the pair with equal numbers, e.g. python -m pip install -r requirements/ascend.txt",
            "请按相同版本号成对重装，例如 python -m pip install -r requirements/ascend.txt",
        ),
    ),
    fault(
        "cann_not_loaded",
        r"lib(hccl|ascendcl|acl_op_compiler|ge_runner|graph|acl_tdt_channel|runtime|msprofiler)\.so\S*: cannot "
        r"open shared object",
        cause=Both(
            "CANN's libraries are not on the library path: its environment is not loaded, or there is no CANN",
            "库路径中没有 CANN 的库：没有加载 CANN 环境变量，或没有安装 CANN",
        ),
        cure=_SOURCE_IT,
    ),
    fault(
        "driver_library",
        r"lib(ascend_hal|c_sec|drvdsmi_host|dcmi)\.so\S*: cannot open shared object",
        cause=Both(
            "the driver's libraries are not on the library path; in a container the driver is not mounted",
            "库路径中没有驱动的库；容器内通常是没有挂载驱动",
        ),
        cure=Both(
            "In a container add -v /usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64; on the host "
            "install the driver.",
            "容器内请加 -v /usr/local/Ascend/driver/lib64:/usr/local/Ascend/driver/lib64；主机上请安装驱动。",
        ),
    ),
    fault(
        "two_accelerators",
        r"Two accelerators cannot be used at the same time",
        cause=Both(
            "torch is a CUDA build; torch_npu needs the CPU build", "torch 是 CUDA 版，而 torch_npu 需要 CPU 版"
        ),
        cure=Both(
            "python -m pip install --force-reinstall torch==<same release> --index-url https://download.pytorch.org/whl/cpu",
            "python -m pip install --force-reinstall torch==<相同版本> --index-url https://download.pytorch.org/whl/cpu",
        ),
    ),
    fault(
        "autoload",
        r"Failed to load the backend extension: torch_npu",
        cause=Both(
            "torch_npu cannot load, so plain `import torch` fails; the true cause is in the lines above or "
            "below this one",
            "torch_npu 加载失败，因此 `import torch` 也失败；真正原因在此行的上下文中",
        ),
        cure=_SOURCE_IT,
        generic=True,
    ),
    fault(
        "home_half_set",
        r"ASCEND_RUNTIME_PATH.*does not exist|ASCEND_HOME_PATH environment variable is not set",
        cause=Both("CANN's environment is only half set", "CANN 环境变量只设置了一部分"),
        cure=_SOURCE_IT,
    ),
    fault(
        "two_allocators",
        r"Both PYTORCH_NPU_ALLOC_CONF and PYTORCH_ALLOC_CONF have been set",
        cause=Both(
            "torch_npu reads both variables of the memory allocator, and ends where both are set",
            "torch_npu 同时读取这两个内存分配器变量，两个都设置时会报错退出",
        ),
        cure=Both(
            "unset PYTORCH_ALLOC_CONF or the other one; burnish sets PYTORCH_NPU_ALLOC_CONF only where neither is set.",
            "unset PYTORCH_ALLOC_CONF（或另一个）；burnish 只在两者都没有设置时才设 PYTORCH_NPU_ALLOC_CONF。",
        ),
    ),
    fault(
        "opp_refused",
        r"\bE30006\b|Failed to verify the OPP",
        codes="507033|507008",
        cause=Both(
            "driver or firmware is older than this CANN wants, or the operator package is for another chip",
            "驱动或固件版本低于 CANN 的要求，或算子包不适用于该芯片",
        ),
        cure=Both(
            "Upgrade driver and firmware (Ascend HDK), or install an older CANN with its torch_npu.",
            "请升级驱动与固件（Ascend HDK），或改用较旧的 CANN 及其配套 torch_npu。",
        ),
    ),
    fault(
        "python_packages",
        r"AclSetCompileopt|ACL_PRECISION_MODE|init env failed",
        codes="500001",
        cause=Both(
            "CANN's Python packages are missing in this environment, or toolkit and driver do not match",
            "当前环境缺少 CANN 所需的 Python 包，或 toolkit 与驱动不匹配",
        ),
        cure=Both(
            "python -m pip install decorator attrs psutil sympy scipy cffi protobuf absl-py requests pathlib2 "
            "pyyaml numpy; "
            "if that changes nothing, match driver and CANN.",
            "python -m pip install decorator attrs psutil sympy scipy cffi protobuf absl-py requests pathlib2 "
            "pyyaml numpy；"
            "若仍失败，请核对驱动与 CANN 的配套。",
        ),
    ),
    fault(
        "dcmi",
        r"dcmi.{0,80}(8020|8005)",
        codes="-8020|-8005",
        cause=Both(
            "the card is held by another container, or its device nodes are not mapped into this one",
            "该卡被其他容器占用，或没有把设备节点映射进本容器",
        ),
        cure=Both(
            "One container a card; map /dev/davinci<N>, /dev/davinci_manager, /dev/devmm_svm and /dev/hisi_hdc "
            "with --device.",
            "一张卡只给一个容器；用 --device 映射 "
            "/dev/davinci<N>、/dev/davinci_manager、/dev/devmm_svm、/dev/hisi_hdc。",
        ),
    ),
    fault(
        "kernel_notice",
        r"Detected kernel version \d",
        cause=Both(
            "accelerate's general check; EulerOS, openEuler and Kylin ship kernel 4.19",
            "accelerate 的通用检查；EulerOS、openEuler、麒麟自带 4.19 内核",
        ),
        cure=Both("Nothing: usual on these systems.", "无需处理：这些系统上都会出现。"),
        generic=True,
    ),
    fault(
        "cuda_not_built",
        r"Torch not compiled with CUDA enabled",
        cause=Both("this torch is a CPU build", "当前 torch 是 CPU 版"),
        cure=Both(
            "On a machine with an NVIDIA GPU install torch's CUDA build; otherwise use --device auto.",
            "有 NVIDIA GPU 的机器请安装 CUDA 版 torch；否则请用 --device auto。",
        ),
    ),
    fault(
        "cuda_driver_old",
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient",
        cause=Both("the NVIDIA driver is older than torch's CUDA wants", "NVIDIA 驱动低于 torch 所用 CUDA 的要求"),
        cure=Both(
            "Update the driver, or install a torch built for an older CUDA.",
            "请升级驱动，或安装基于较旧 CUDA 的 torch。",
        ),
    ),
)
