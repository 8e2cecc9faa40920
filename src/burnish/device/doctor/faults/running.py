"""Texts of a run that has begun to compute."""

from __future__ import annotations

from burnish.device.doctor.faults.fault import Fault, fault
from burnish.device.doctor.findings import Both

_BLOCKING = Both(
    "Run once more with ASCEND_LAUNCH_BLOCKING=1 to get the true place; look for indices out of range and rows without "
    "one token to attend to.",
    "请设置 ASCEND_LAUNCH_BLOCKING=1 再运行一次以得到真实出错位置；检查越界的索引，以及没有任何可见 token 的行。",
)

RUNNING: tuple[Fault, ...] = (
    fault(
        "out_of_memory",
        r"(NPU|CUDA|HBM) out of memory|DefaultCPUAllocator: can't allocate memory",
        codes="207018",
        cause=Both("the device's memory is full", "设备显存已满"),
        cure=Both(
            "Lower --max_tokens_per_micro_batch (the update stays the same) or --max_length, or train an adapter with "
            "--use_peft; `burnish doctor` shows who else holds memory.",
            "请调小 --max_tokens_per_micro_batch（不影响更新结果）或 --max_length，或用 --use_peft 训练适配器；"
            "并用 `burnish doctor` 查看还有谁占用显存。",
        ),
    ),
    fault(
        "no_kernel",
        r"Cannot find bin of op|not in libopapi\.so|OpKernel not found",
        codes="561103",
        cause=Both(
            "the operator package (ops, kernels) for this chip is missing, or the operator does not take this dtype",
            "缺少该芯片的算子包（ops/kernels），或该算子不支持此数据类型",
        ),
        cure=Both(
            "Install the CANN ops (kernels) package of the same version for the chip; if it is there, look at "
            "the dtype "
            "named in the message.",
            "请安装同版本、对应芯片的 CANN ops（kernels）算子包；若已安装，请检查报错中的数据类型。",
        ),
    ),
    fault(
        "float64",
        r"not implemented for DT_DOUBLE|DT_DOUBLE.*not support",
        cause=Both(
            "a float64 tensor reached the NPU, which has no kernel for it",
            "有 float64 张量进入 NPU，而 NPU 没有对应算子",
        ),
        cure=Both(
            "Keep float64 on the CPU; use float32 on the device.",
            "float64 请留在 CPU 上；设备上请用 float32。",
        ),
    ),
    fault(
        "vector_core",
        r"vector core (exception|timeout)",
        codes="50703[456]",
        cause=Both(
            "a kernel on the vector cores failed: a bad index or shape, a fully masked attention row, or a "
            "fault of the operator",
            "向量核上的算子执行异常：索引或形状有误、注意力中有被完全屏蔽的行，或算子本身的缺陷",
        ),
        cure=_BLOCKING,
    ),
    fault(
        "ai_core",
        r"ai\s?(core|cpu) (exception|timeout|trap)|aicore error",
        codes="50701[4-8]",
        cause=Both(
            "a kernel failed on the AI Core or AI CPU: a bad index or shape, or a fault of the operator",
            "AI Core 或 AI CPU 上的算子执行异常：索引或形状有误，或算子本身的缺陷",
        ),
        cure=_BLOCKING,
    ),
    fault(
        "runtime_507",
        "",
        codes=r"507\d{3}",
        cause=Both(
            "an error inside CANN's runtime; a card's own fault or the consequence of an earlier one",
            "CANN 运行时内部错误；可能是该卡自身故障，也可能由更早的错误引起",
        ),
        cure=Both(
            "Read the first error above it and ~/ascend/log/debug/plog; try ASCEND_LAUNCH_BLOCKING=1, then "
            "another card.",
            "请看它之前的第一个错误与 ~/ascend/log/debug/plog；可设 ASCEND_LAUNCH_BLOCKING=1 重试，再换一张卡。",
        ),
        generic=True,
    ),
    fault(
        "stale_gradients",
        r"adamw_torch_npu_fused|set_to_none is not supported in fused optimizers|NpuFusedAdamW"
        r"|Fused optimizer's parameters must be either float32 or float16",
        cause=Both(
            "NpuFusedAdamW keeps the gradients of its first step: with transformers' Trainer every later step "
            "is silently wrong",
            "NpuFusedAdamW 会一直使用第一步的梯度：配合 transformers 的 Trainer，之后每一步都会静默出错",
        ),
        cure=Both(
            'In other programs set optim="adamw_torch_fused"; burnish never uses it.',
            '其他程序请设 optim="adamw_torch_fused"；burnish 从不使用它。',
        ),
    ),
    fault(
        "cpu_fallback",
        r"fall ?back to (run on )?(the )?CPU|not currently supported on the NPU backend",
        cause=Both(
            "an operator has no NPU kernel and runs on the CPU: right, but slow",
            "某个算子没有 NPU 实现，已回退到 CPU：结果正确但很慢",
        ),
        cure=Both(
            "export TORCH_NPU_FALLBACK_CPU_DISABLE=1 makes it an error that names the place.",
            "export TORCH_NPU_FALLBACK_CPU_DISABLE=1 可使其报错并指出位置。",
        ),
    ),
)
