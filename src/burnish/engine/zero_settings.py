"""DeepSpeed's JSON: what of it is heeded, what burnish's own settings say instead, and what contradicts them.

"auto" and what is left out are filled by burnish's settings; a value that says the same is taken; any other is an error
that names the key and the cure. Nothing is overruled in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.errors import ConfigError

if TYPE_CHECKING:
    from burnish.engine.settings import TrainingSettings

AUTO = "auto"
MICRO, ACCUMULATION = "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"
HANDED = ("communication_data_type",)
"""Keys at the top that go to DeepSpeed as they are."""
HANDED_ZERO = (
    "stage", "allgather_partitions", "allgather_bucket_size", "overlap_comm", "reduce_scatter", "reduce_bucket_size",
    "contiguous_gradients", "use_multi_rank_bucket_allreduce",
)  # fmt: skip
"""Keys of zero_optimization that go to DeepSpeed as they are.

round_robin_gradients is none of them: DeepSpeed 0.19 then tells other places of a parameter's state than it uses.
"""
_SHOWN = ("steps_per_print", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer")
"""Keys that alter no update and are of no use here: burnish prints its own lines and brings its own AdamW."""
_ANSWERED = (
    "train_batch_size", MICRO, ACCUMULATION, "gradient_clipping", "optimizer", "scheduler", "fp16", "bf16",
    "zero_optimization",
)  # fmt: skip
_CURES = {
    "activation_checkpointing": "--gradient_checkpointing recomputes activations",
    "amp": "--precision says it",
    "torch_autocast": "--precision says it",
    "flops_profiler": "--profile records steps",
    "wall_clock_breakdown": "--profile records steps",
    "tensorboard": "--report_to tensorboard writes records",
    "wandb": "--report_to wandb writes records",
    "zero_optimization.offload_optimizer": "--parallel fsdp on more devices needs less memory on each",
    "zero_optimization.offload_param": "--parallel fsdp on more devices needs less memory on each",
    "zero_optimization.cpu_offload": "--parallel fsdp on more devices needs less memory on each",
}
_SCHEDULES = {"WarmupDecayLR": "linear", "WarmupLR": "constant_with_warmup", "WarmupCosineLR": "cosine"}
"""DeepSpeed's schedules, and what they are called here."""
_STAGES = (1, 2)


def read_zero(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The JSON as a dict, from a file or as given; only its form is looked at, and which stage it is.

    Raises:
        ConfigError: it can't be read, or asks for what burnish has not.
    """
    options = dict(given) if isinstance(given, Mapping) else _read_file(given)
    zero = options.get("zero_optimization")
    if not isinstance(zero, Mapping):
        raise _error("zero_optimization", "is missing", 'give {"stage": 1} or {"stage": 2}')
    stage = zero.get("stage")
    if stage == 3:
        raise _error("zero_optimization.stage", "is 3", "--parallel fsdp spreads weights too, and needs no JSON")
    if stage not in _STAGES or isinstance(stage, bool):
        raise _error("zero_optimization.stage", f"is {stage!r}", "burnish runs stages 1 and 2; leave --deepspeed out")
    for key, value in options.items():
        if key not in (*HANDED, *_SHOWN, *_ANSWERED) and not _is_off(value):
            raise _not_handed(key)
    for key, value in zero.items():
        if key not in HANDED_ZERO and not _is_for_stage_3(key) and not _is_off(value):
            raise _not_handed(f"zero_optimization.{key}")
    for key in ("optimizer", "scheduler", "fp16", "bf16"):
        if not isinstance(options.get(key, {}), Mapping):
            raise _error(key, f"is {options[key]!r}", "it must be an object")
    return options


def fill_zero(
    options: Mapping[str, Any], settings: TrainingSettings, *, batch_size: int, num_ranks: int, precision: str
) -> dict[str, Any]:
    """What DeepSpeed is given of a JSON that `read_zero` has read.

    Args:
        options: the JSON.
        settings: burnish's own, which rule.
        batch_size: groups of a step over all ranks.
        num_ranks: of the run.
        precision: fp32, bf16 or fp16; auto where it is not known yet.

    Raises:
        ConfigError: a value contradicts a setting.
    """
    _check_same(options, "train_batch_size", batch_size, f"--global_batch_size {options.get('train_batch_size')}")
    _check_product(options, settings, batch_size=batch_size, num_ranks=num_ranks)
    clipping = options.get("gradient_clipping")
    _check_same(options, "gradient_clipping", settings.max_grad_norm, f"--max_grad_norm {clipping}")
    _check_optimizer(options.get("optimizer", {}), settings)
    _check_schedule(options.get("scheduler", {}), settings)
    _check_precision(options, precision)
    zero = {key: value for key, value in options["zero_optimization"].items() if key in HANDED_ZERO and value != AUTO}
    return {**{key: options[key] for key in HANDED if options.get(key) not in (None, AUTO)}, "zero_optimization": zero}


def _read_file(name: str) -> dict[str, Any]:
    try:
        options = json.loads(Path(name).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--deepspeed {name}: can't be read ({error.strerror}); name DeepSpeed's JSON.") from error
    except ValueError as error:
        raise ConfigError(f"--deepspeed {name}: not JSON ({error}).") from error
    if not isinstance(options, dict):
        raise ConfigError(f"--deepspeed {name}: holds {type(options).__name__}, not an object.")
    return options


def _check_same(options: Mapping[str, Any], key: str, own: Any, instead: str, *, within: str = "") -> None:
    value = options.get(key)
    if value is None or value == AUTO or (value == own and not isinstance(value, bool)):
        return
    raise _error(f"{within}{key}", f"is {value!r}, and this run has {own!r}", f'write "auto", or give {instead}')


def _check_product(options: Mapping[str, Any], settings: TrainingSettings, *, batch_size: int, num_ranks: int) -> None:
    """Micro-batches are cut by tokens, so that only the product of the two sizes can be right or wrong."""
    given = {key: options[key] for key in (MICRO, ACCUMULATION) if options.get(key) not in (None, AUTO)}
    for key, value in given.items():
        if type(value) is not int or value < 1:
            raise _error(key, f"is {value!r}", 'write "auto", or a whole number of at least 1')
    if not given:
        return
    micro = given.get(MICRO, settings.per_device_train_batch_size)
    steps = given.get(ACCUMULATION, settings.gradient_accumulation_steps)
    if micro * steps * num_ranks != batch_size:
        raise _error(
            " and ".join(given),
            f"make {micro} × {steps} × {num_ranks} ranks = {micro * steps * num_ranks} groups of a step, and this run "
            f"has {batch_size}",
            'write "auto", or give the same to --per_device_train_batch_size and --gradient_accumulation_steps',
        )


def _check_optimizer(section: Mapping[str, Any], settings: TrainingSettings) -> None:
    kind = section.get("type", AUTO)
    if kind != AUTO and str(kind).lower() != "adamw":
        raise _error("optimizer.type", f"is {kind!r}", "burnish trains with AdamW; leave the section out")
    own = {
        "lr": (settings.learning_rate, "--learning_rate"),
        "betas": ([settings.adam_beta1, settings.adam_beta2], "--adam_beta1 and --adam_beta2"),
        "eps": (settings.adam_epsilon, "--adam_epsilon"),
        "weight_decay": (settings.weight_decay, "--weight_decay"),
    }
    values = section.get("params", {})
    for key, value in values.items():
        if key in own:
            _check_same(values, key, own[key][0], own[key][1], within="optimizer.params.")
        elif not _is_off(value) and key not in ("adam_w_mode", "torch_adam"):
            raise _not_handed(f"optimizer.params.{key}")


def _check_schedule(section: Mapping[str, Any], settings: TrainingSettings) -> None:
    kind = section.get("type", AUTO)
    if kind != AUTO and _SCHEDULES.get(kind) != settings.lr_scheduler_type:
        named = _SCHEDULES.get(kind)
        cure = "leave the section out" + (f", or give --lr_scheduler_type {named}" if named else "")
        own = settings.lr_scheduler_type
        raise _error("scheduler.type", f"is {kind!r}, and this run has --lr_scheduler_type {own}", cure)
    for key, value in section.get("params", {}).items():
        if value != AUTO:
            cure = 'write "auto"; --learning_rate, --warmup_steps and --lr_scheduler_kwargs say it'
            raise _error(f"scheduler.params.{key}", f"is {value!r}", cure)


def _check_precision(options: Mapping[str, Any], precision: str) -> None:
    if precision == "fp16" or options.get("fp16", {}).get("enabled") is True:
        raise ConfigError(
            "--deepspeed with fp16 needs a loss scale that all ranks share, and there is none: take --precision bf16 "
            'or fp32, and write "auto" or false as fp16.enabled.'
        )
    asked = options.get("bf16", {}).get("enabled", AUTO)
    if precision != AUTO and asked != AUTO and asked != (precision == "bf16"):
        other = "bf16" if asked else "fp32"
        raise _error(
            "bf16.enabled", f"is {json.dumps(asked)}, and this run computes in {precision}",
            f'write "auto", or give --precision {other}',
        )  # fmt: skip


def _is_for_stage_3(key: str) -> bool:
    """Whether a key means something at stage 3 only; templates for all stages have them."""
    return key.startswith("stage3_") or key == "sub_group_size"


def _is_off(value: Any) -> bool:
    """Whether a value asks for nothing."""
    if isinstance(value, Mapping):
        return value.get("device", value.get("enabled", True)) in (False, None, "none")
    return value in (None, False, AUTO)


def _not_handed(key: str) -> ConfigError:
    return _error(key, "is nothing that burnish hands to DeepSpeed", f"leave it out{_cure(key)}")


def _cure(key: str) -> str:
    return f"; {_CURES[key]}" if key in _CURES else ""


def _error(key: str, fault: str, cure: str) -> ConfigError:
    return ConfigError(f"--deepspeed, {key} {fault}.\n{cure[0].upper()}{cure[1:]}.")
