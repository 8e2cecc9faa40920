"""TRL's settings of the optimizer, the steps and the processes, which all methods have."""

from __future__ import annotations

from typing import Any

from burnish.errors import ConfigError
from burnish.trl_flags.kinds import Answer, Layer, NotNeeded, Refused, Same, Translated, renamed
from burnish.trl_flags.launch import DEEPSPEED, DEEPSPEED_ZH, read_fsdp
from burnish.trl_flags.switches import read_bool

_ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf")


class _PlainAdamW(tuple[str, ...]):
    """The names of AdamW itself, the fused kernel of any device included."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        text = str(name)
        return name is None or text in _ADAMW or (text.startswith("adamw_torch_") and text.endswith("_fused"))


def read_data_seed(value: Any, layer: Layer) -> dict[str, Any]:
    """One seed rules order, dropout and new weights; a second one is accepted where it is the same."""
    if value is None or value == layer.get("seed", 42):
        return {}
    raise ConfigError(f"--data_seed {value} is not supported; one seed rules the order as well: --seed {value}")


def read_use_cpu(value: Any, _: Layer) -> dict[str, Any]:
    """`device` from the switch that keeps off the accelerator."""
    return {"device": "cpu"} if read_bool(value, "--use_cpu") else {}


def read_checkpointing_kwargs(value: Any, _: Layer) -> dict[str, Any]:
    """Nothing: recomputation is always the non-reentrant kind. Anything else than its switch is refused by name."""
    if isinstance(value, dict):
        for name in value:
            if name not in ("use_reentrant", "preserve_rng_state"):
                raise ConfigError(f"--gradient_checkpointing_kwargs: {name} is not supported; leave it out")
    return {}


_COMPILE = "compiled layers were measured and gain nothing over --fused_layers (docs/performance.md); leave it out"
_COMPILE_ZH = "实测编译各层并不优于 --fused_layers（见 docs/performance.md），请去掉此项"
_LIGER = "the head meets only counted positions and runs in blocks, so the full logits never exist"
_LIGER_ZH = "输出层只计算计入损失的位置并分块进行，完整的 logits 从不存在"
_ONE_DEVICE = "layers of one model are not spread over devices by tensor or pipeline; leave it out"
_ONE_DEVICE_ZH = "不以张量或流水线方式切分模型，请去掉此项"

TRAINING: dict[str, Answer] = {
    "gradient_checkpointing": Same(
        "off: micro-batches keep the memory, and recomputing costs a third more time; gradients are equal",
        "默认关闭：内存由微批切分控制，重算约多用三分之一时间；梯度相同",
    ),
    "activation_checkpointing": renamed("gradient_checkpointing"),
    "activation_checkpointing_kwargs": Translated(
        "gradient_checkpointing", read_checkpointing_kwargs, "always non-reentrant", "总是非重入式", is_bag=True
    ),
    "gradient_checkpointing_kwargs": Translated(
        "gradient_checkpointing", read_checkpointing_kwargs, "always non-reentrant", "总是非重入式", is_bag=True
    ),
    "lr_scheduler_type": Same(
        "all schedules that are functions of the step; not reduce_lr_on_plateau and greedy",
        "所有只依赖步数的调度；不含 reduce_lr_on_plateau 和 greedy",
    ),
    "optim": Refused(
        "the optimizer is AdamW; leave it out",
        "优化器为 AdamW，请去掉此项",
        harmless=_PlainAdamW(_ADAMW),
    ),
    "optim_args": Refused(
        "AdamW's settings are --adam_beta1, --adam_beta2, --adam_epsilon and --weight_decay",
        "AdamW 的设置为 --adam_beta1、--adam_beta2、--adam_epsilon 和 --weight_decay",
        harmless=(None, False, ""),
    ),
    "optim_target_modules": Refused(
        "it belongs to optimizers that are not built; leave it out", "它属于未支持的优化器，请去掉此项"
    ),
    "average_tokens_across_devices": NotNeeded(
        "a step always divides once, by the count over all its rows", "一步总是按全部数据的数量只除一次"
    ),
    "torch_compile": Refused(_COMPILE, _COMPILE_ZH),
    "torch_compile_backend": Refused(_COMPILE, _COMPILE_ZH),
    "torch_compile_mode": Refused(_COMPILE, _COMPILE_ZH),
    "use_liger_kernel": NotNeeded(_LIGER, _LIGER_ZH),
    "liger_kernel_config": NotNeeded(_LIGER, _LIGER_ZH),
    "activation_offloading": Same(
        "the same gradients; on the CPU, whose memory is the host's, a line says that nothing moves",
        "梯度相同；CPU 的内存就是主机内存，会提示没有可移动的内容",
    ),
    "torch_empty_cache_steps": NotNeeded("micro-batches are cut to fit the memory", "微批按可用内存切分"),
    "seed": Same("of order, dropout and new weights", "决定顺序、dropout 和新权重"),
    "data_seed": Translated("seed", read_data_seed, "one seed rules the order as well", "顺序也由同一个种子决定"),
    "full_determinism": renamed("deterministic"),
    "use_cpu": Translated("device", read_use_cpu, "true is --device cpu", "true 即 --device cpu"),
    "fsdp": Translated("parallel", read_fsdp, "any value is fsdp", "任何取值都是 fsdp"),
    "fsdp_config": Refused(
        "--parallel fsdp gathers layer by layer and has nothing to set", "--parallel fsdp 逐层聚合，没有可设的选项"
    ),
    "deepspeed": Same(DEEPSPEED, DEEPSPEED_ZH),
    "parallelism_config": Refused(_ONE_DEVICE, _ONE_DEVICE_ZH),
    "accelerator_config": Refused(
        "--device, --precision and the batch sizes say what it would", "请用 --device、--precision 和批大小"
    ),
}
