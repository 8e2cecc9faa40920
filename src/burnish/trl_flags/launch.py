"""TRL's settings of processes, and what `trl` hands on to accelerate's launcher."""

from __future__ import annotations

from typing import Any

from burnish.trl_flags.kinds import Answer, Layer, NotNeeded, Refused, Translated, renamed
from burnish.trl_flags.model import read_precision

_DDP = "gradients are summed once a step, without hooks to tune"
_DDP_ZH = "梯度每步只求和一次，没有需要调整的钩子"
_LAUNCH = "put it before the method: `burnish launch --num_processes N METHOD …`"
_LAUNCH_ZH = "请写在方法名之前：`burnish launch --num_processes N METHOD …`"

DEEPSPEED = "DeepSpeed's JSON for ZeRO 1 and 2; for ZeRO-3 take --parallel fsdp, which spreads weights too"
DEEPSPEED_ZH = "DeepSpeed 的 JSON，支持 ZeRO 1 和 2；ZeRO-3 请用 --parallel fsdp，它同样切分权重"


def read_fsdp(value: Any, layer: Layer) -> dict[str, Any]:
    """FSDP where it is asked for, in whichever words."""
    return {"parallel": "fsdp"} if value else {}


LAUNCH: dict[str, Answer] = {
    "ddp_find_unused_parameters": NotNeeded(_DDP, _DDP_ZH),
    "ddp_bucket_cap_mb": NotNeeded(_DDP, _DDP_ZH),
    "ddp_broadcast_buffers": NotNeeded(_DDP, _DDP_ZH),
    "ddp_static_graph": NotNeeded(_DDP, _DDP_ZH),
    "ddp_backend": NotNeeded("it follows from --device", "由 --device 决定"),
    "ddp_timeout": NotNeeded(_DDP, _DDP_ZH),
    "ignore_bias_buffers": NotNeeded(_DDP, _DDP_ZH),
    "local_rank": NotNeeded("it is read from the launcher's environment", "从启动器的环境变量读取"),
}
"""Settings of TRL 1.16 itself."""

ACCELERATE: dict[str, Answer] = {
    "accelerate_config": Refused(_LAUNCH, _LAUNCH_ZH, harmless=(None, False, "single_gpu")),
    "config_file": Refused(
        "accelerate's configuration is not read; --device and --precision say what it would",
        "不读取 accelerate 的配置，请用 --device 和 --precision",
    ),
    "num_processes": Refused(_LAUNCH, _LAUNCH_ZH, harmless=(None, 1)),
    "num_machines": Refused(_LAUNCH, _LAUNCH_ZH, harmless=(None, 1)),
    "multi_gpu": Refused(_LAUNCH, _LAUNCH_ZH),
    "use_deepspeed": Refused(
        "give DeepSpeed's JSON: --deepspeed ds.json (ZeRO 1 and 2)",
        "请给出 DeepSpeed 的 JSON：--deepspeed ds.json（ZeRO 1 和 2）",
    ),
    "use_fsdp": Translated("parallel", read_fsdp, "true is fsdp", "true 即 fsdp"),
    "deepspeed_config_file": renamed("deepspeed", DEEPSPEED, DEEPSPEED_ZH),
    "machine_rank": Refused(_LAUNCH, _LAUNCH_ZH, harmless=(None, 0)),
    "main_process_ip": Refused(_LAUNCH, _LAUNCH_ZH, harmless=(None,)),
    "main_process_port": Refused(_LAUNCH, _LAUNCH_ZH, harmless=(None,)),
    "mixed_precision": Translated("precision", read_precision, "no is fp32", "no 即 fp32"),
    "dynamo_backend": Refused(
        "compiled layers were measured and gain nothing over --fused_layers (docs/performance.md); leave it out",
        "实测编译各层并不优于 --fused_layers（见 docs/performance.md），请去掉此项",
        harmless=(None, False, "no"),
    ),
}
"""Flags that `trl` hands on to `accelerate launch`; the most used of them."""
