"""TRL's settings of the model, its precision and its adapters."""

from __future__ import annotations

import json
from typing import Any

from burnish.errors import ConfigError
from burnish.trl_flags.kinds import Answer, Layer, NotNeeded, Refused, Same, Translated
from burnish.trl_flags.switches import read_bool

_DTYPES = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16", "fp16": "fp16", "half": "fp16"}
_STORED_AS_IS = ("auto", "float32", "fp32", "float", "None")


def read_precision(_: Any, layer: Layer) -> dict[str, Any]:
    """`precision` from all the keys that TRL spreads it over, since one may switch off what another means."""
    bf16 = _switch(layer, "bf16")
    fp16 = _switch(layer, "fp16")
    if bf16 and fp16:
        raise ConfigError("--bf16 and --fp16 contradict each other; keep one")
    if fp16 or bf16:
        return {"precision": "fp16" if fp16 else "bf16"}
    stored = _stored_dtype(layer)
    mixed = str(layer.get("mixed_precision", "no"))
    if mixed in ("bf16", "fp16"):
        return {"precision": mixed}
    if stored in _DTYPES:
        return {"precision": _DTYPES[stored]}
    return {"precision": "fp32"} if bf16 is False or "mixed_precision" in layer else {}


def read_attention(value: Any) -> Any:
    """Sdpa, eager or flex_attention; kernels that take no mask are refused with their reason."""
    word = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(word, str) and ("flash" in word or "/" in word):
        raise ConfigError(
            f"--attn_implementation {word} is not supported; leave it out: a shared prompt needs a mask of its own, "
            "which sdpa takes"
        )
    return value


def _switch(layer: Layer, name: str) -> bool | None:
    value = layer.get(name)
    return None if value is None else read_bool(value, f"--{name}")


def _stored_dtype(layer: Layer) -> str:
    for name in ("dtype", "torch_dtype"):
        if name in layer:
            word = str(layer[name]).removeprefix("torch.")
            if word not in (*_DTYPES, *_STORED_AS_IS):
                raise ConfigError(f"--{name} {word}: must be one of auto, float32, bfloat16, float16")
            return word
    return "auto"


def read_model_init_kwargs(value: Any, _: Layer) -> dict[str, Any]:
    """The arguments of from_pretrained that have a setting here; the others are refused by name."""
    if isinstance(value, str):
        value = _read_json(value)
    settings: dict[str, Any] = {}
    for name, argument in (value or {}).items():
        if name in ("dtype", "torch_dtype"):
            settings |= read_precision(None, {"dtype": argument})
        elif name == "attn_implementation":
            settings[name] = read_attention(argument)
        elif name == "trust_remote_code":
            settings[name] = argument
        elif name == "revision":
            settings["model_revision"] = argument
        elif name not in ("use_cache", "low_cpu_mem_usage") and argument is not None:
            raise ConfigError(
                f"--model_init_kwargs: {name} is not supported; what is: dtype, attn_implementation, revision, "
                "trust_remote_code"
            )
    return settings


def _read_json(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except json.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        raise ConfigError(f'--model_init_kwargs {text}: must be JSON, as in \'{{"revision": "main"}}\'')
    return read


_STORAGE = "weights are stored and stepped in float32 whatever their file holds; precision is that of the computation"
_STORAGE_ZH = "无论文件中的类型如何，权重都以 float32 存储和更新；precision 指计算精度"
_QUANTISED = "train a LoRA adapter over full weights: --use_peft, with --precision bf16 and --gradient_checkpointing"
_QUANTISED_ZH = "在完整权重上训练 LoRA 适配器：--use_peft，加 --precision bf16 和 --gradient_checkpointing"

MODEL: dict[str, Answer] = {
    "dtype": Translated("precision", read_precision, _STORAGE, _STORAGE_ZH),
    "bf16": Translated(
        "precision",
        read_precision,
        "true is bf16, false is fp32; unset, bf16 is the choice where the accelerator has it, and fp32 on the CPU",
        "true 为 bf16，false 为 fp32；不设置时，加速器支持 bf16 就用 bf16，CPU 上用 fp32",
    ),
    "fp16": Translated("precision", read_precision, "true is fp16", "true 为 fp16"),
    "bf16_full_eval": NotNeeded("evaluation computes in the precision of training", "评测与训练使用相同的计算精度"),
    "fp16_full_eval": NotNeeded("evaluation computes in the precision of training", "评测与训练使用相同的计算精度"),
    "tf32": Refused("use --precision bf16, or leave it out", "请用 --precision bf16，或去掉此项"),
    "attn_implementation": Same(
        "sdpa, eager or, on CUDA, flex_attention: shared prompts need a mask of their own, not taken by flash kernels",
        "sdpa、eager，或在 CUDA 上用 flex_attention：共享提示需要自定义掩码，flash-attention 内核不接受",
        read=read_attention,
    ),
    "model_init_kwargs": Translated(
        "precision, attn_implementation, model_revision, trust_remote_code",
        read_model_init_kwargs,
        "by the names that have a setting here; others are refused by name",
        "仅接受此处有对应设置的名字，其余逐名拒绝",
        is_bag=True,
    ),
    "use_cache": NotNeeded("training keeps no key-value cache", "训练时不保留键值缓存"),
    "lora_dropout": Same(
        "0 is exact: rewards start at 0 and a step does not depend on how it is cut; set 0.05 for TRL's",
        "取 0 时结果精确：奖励从 0 开始，一步的更新与切分方式无关；要与 TRL 相同请设 0.05",
    ),
    "lora_task_type": Refused(
        "adapters are those of causal language models", "适配器均用于因果语言模型", harmless=(None, "CAUSAL_LM")
    ),
    "load_in_8bit": Refused(_QUANTISED, _QUANTISED_ZH),
    "load_in_4bit": Refused(_QUANTISED, _QUANTISED_ZH),
    "bnb_4bit_quant_type": Refused(_QUANTISED, _QUANTISED_ZH, harmless=(None, "nf4")),
    "use_bnb_nested_quant": Refused(_QUANTISED, _QUANTISED_ZH),
    "bnb_4bit_quant_storage": Refused(_QUANTISED, _QUANTISED_ZH),
}
