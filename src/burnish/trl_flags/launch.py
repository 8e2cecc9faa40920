"""TRL's settings of processes, and what `trl` hands on to accelerate's launcher."""

from __future__ import annotations

from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Translated
from burnish.trl_flags.model import read_precision

_DDP = "gradients are summed once a step, without hooks to tune"
_DDP_ZH = "梯度每步只求和一次，没有需要调整的钩子"
_ONE_DEVICE = "a run takes one device for now; leave it out"
_ONE_DEVICE_ZH = "目前一次运行使用一个设备，请去掉此项"

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
    "accelerate_config": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH, harmless=(None, False, "single_gpu")),
    "config_file": Refused(
        "accelerate's configuration is not read; --device and --precision say what it would",
        "不读取 accelerate 的配置，请用 --device 和 --precision",
    ),
    "num_processes": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH, harmless=(None, 1)),
    "num_machines": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH, harmless=(None, 1)),
    "multi_gpu": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH),
    "use_deepspeed": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH),
    "use_fsdp": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH),
    "deepspeed_config_file": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH),
    "machine_rank": NotNeeded("a run takes one machine", "一次运行使用一台机器"),
    "main_process_port": NotNeeded("a run takes one process", "一次运行使用一个进程"),
    "mixed_precision": Translated("precision", read_precision, "no is fp32", "no 即 fp32"),
    "dynamo_backend": Refused(
        "compilation is not built yet; leave it out", "尚未支持编译，请去掉此项", harmless=(None, False, "no")
    ),
}
"""Flags that `trl dpo` hands on to `accelerate launch`; the most used of them."""
