"""Low-rank adapters through peft: adding one, going on from one, and the reference that comes with it.

The reference needs no second model. For a fresh adapter it is the adapter switched off; for one that training goes on
from, it is a frozen second copy of the adapter, loaded under the name `reference`. What would make either untrue
(adapters that move the base's own weights, or that change its biases) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from burnish.errors import ConfigError, ModelError
from burnish.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_safetensors
from burnish.models.quiet import quiet_transformers
from burnish.models.settings import AdapterSettings

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig, PeftModel
    from transformers import PreTrainedModel

POLICY = "default"
REFERENCE = "reference"
ALL_LINEAR = "all-linear"
REWARD_HEAD = "score"
"""What transformers calls the scalar head of its sequence classifiers."""

Task = Literal["CAUSAL_LM", "SEQ_CLS"]
"""peft's names of what the model under an adapter computes."""
LANGUAGE: Task = "CAUSAL_LM"
REWARDS: Task = "SEQ_CLS"

_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_OPENS_MORE = ("XLORA", "BOFT", "SHADOW")
"""Kinds whose configuration names other files to open, or that compile code."""
_SHOWN_NAMES = 12


def has_adapter(model: nn.Module) -> bool:
    """Whether a model carries a peft adapter."""
    return hasattr(model, "peft_config") and hasattr(model, "base_model")


def gives_rewards(model: nn.Module) -> bool:
    """Whether a model has a scalar head instead of a vocabulary's."""
    return isinstance(getattr(model, REWARD_HEAD, None), nn.Module)


def adapter_config(settings: AdapterSettings, *, task: Task = LANGUAGE) -> LoraConfig:
    """Turn the settings into peft's configuration of a LoRA adapter.

    Args:
        settings: of the adapter.
        task: REWARDS has peft train the scalar head in full beside the adapter.

    Raises:
        ConfigError: a value out of range, or all-linear beside other names.
    """
    from peft import LoraConfig, TaskType

    if settings.lora_r < 1:
        raise ConfigError(f"--lora_r {settings.lora_r}: the rank must be at least 1")
    if settings.lora_alpha <= 0:
        raise ConfigError(f"--lora_alpha {settings.lora_alpha}: the scale must be above 0")
    if not 0 <= settings.lora_dropout < 1:
        raise ConfigError(f"--lora_dropout {settings.lora_dropout}: a probability in [0, 1) is needed")
    return LoraConfig(
        task_type=TaskType(task),
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=_target_modules(settings.lora_target_modules),
        target_parameters=settings.lora_target_parameters,
        modules_to_save=settings.lora_modules_to_save,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
    )


def _target_modules(names: list[str] | None) -> list[str] | str | None:
    if names is None or ALL_LINEAR not in names:
        # peft reads a bare string as a regular expression over full module names, a list as names.
        is_pattern = names is not None and len(names) == 1 and re.search(r"[*+?|()\[\]^$\\]", names[0])
        return names[0] if names and is_pattern else names
    if len(names) > 1:
        raise ConfigError("--lora_target_modules: all-linear stands alone, without further names")
    return ALL_LINEAR


def add_adapter(model: PreTrainedModel, settings: AdapterSettings | PeftConfig) -> PeftModel:
    """Put a fresh trainable adapter on a model and freeze the rest; the adapter's weights are float32.

    Args:
        model: the base; changed in place.
        settings: ours, or a ready configuration of peft.

    Raises:
        ConfigError: names that the model lacks, a model that carries an adapter already, or a kind of adapter whose
            switched-off state is not the base.
    """
    from peft import get_peft_model

    if has_adapter(model):
        raise ConfigError(
            "the model already carries an adapter: leave out --use_peft to go on training it, "
            "or write it into its base first (burnish merge)"
        )
    task = _task_of(model)
    config: Any = (
        adapter_config(settings, task=task)
        if isinstance(settings, AdapterSettings)
        # TRL's default is CAUSAL_LM for reward models too, which would leave the head as it came.
        else replace(settings, task_type=task if settings.task_type in (None, LANGUAGE) else settings.task_type)
    )
    _check_kind(config, task)
    _check_names(model, config)
    try:
        with quiet_transformers():
            adapted: Any = get_peft_model(model, config, adapter_name=POLICY)
    except ValueError as error:
        cause = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"no adapter can be put on this {model.config.model_type} ({cause}); "
            f"try --lora_target_modules {ALL_LINEAR}, or some of: {_listed(_layer_names(model))}"
        ) from error
    _check_head(adapted)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    adapted.peft_config[POLICY].base_model_name_or_path = model.name_or_path or None
    return adapted


def _task_of(model: nn.Module) -> Task:
    return REWARDS if gives_rewards(model) else LANGUAGE


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Load an adapter twice onto its base: trainable, and frozen as the reference that training starts from.

    A reward model has no reference: its adapter is loaded once, with its head.

    Raises:
        ModelError: the folder's adapter is incomplete, damaged, of an unusable kind, or made for another model.
    """
    from peft import PeftConfig, PeftModelForCausalLM, PeftModelForSequenceClassification

    task = _task_of(base)
    kind = PeftModelForSequenceClassification if task == REWARDS else PeftModelForCausalLM
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{folder} has an {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS} (pickles are not opened)")
    check_safetensors(folder / ADAPTER_WEIGHTS)
    try:
        with quiet_transformers():
            config: Any = PeftConfig.from_pretrained(str(folder))
            _check_kind(config, task)
            config.inference_mode = False
            config.base_model_name_or_path = base.name_or_path
            model = kind(base, config, adapter_name=POLICY)
            _read_weights(model, folder)
        if task == LANGUAGE:
            keep_start(model)
    except ConfigError as error:
        raise ModelError(f"{folder}: {error}") from error
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        if isinstance(error, ModelError):
            raise
        cause = " ".join(str(error).split())[:200]
        raise ModelError(f"the adapter in {folder} does not fit {base.name_or_path}: {cause}") from error
    return model


def _read_weights(model: PeftModel, folder: Path) -> None:
    result: Any = model.load_adapter(str(folder), POLICY, is_trainable=True, torch_device="cpu")
    lost = [*result.missing_keys, *result.unexpected_keys]
    if lost:
        raise ModelError(
            f"the adapter in {folder} does not fit {model.name_or_path}: {len(lost)} tensors are missing or unknown, "
            f"the first {lost[0]}; give the base that it was trained on"
        )


def keep_start(model: PeftModel) -> None:
    """Keep a frozen copy of a model's adapter as it stands, as the reference that training goes on from.

    Raises:
        ConfigError: the adapter is of an unusable kind, or not the only one, named `default`.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    if list(model.peft_config) != [POLICY]:
        names = ", ".join(model.peft_config)
        raise ConfigError(f"the model carries the adapters {names}; one alone, named {POLICY}, can be trained")
    config: Any = model.peft_config[POLICY]
    _check_kind(config, LANGUAGE)
    _check_head(model)
    with quiet_transformers():
        start = {
            name: tensor.detach().clone()
            for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
        }
        model.add_adapter(REFERENCE, replace(config, inference_mode=True))
        set_peft_model_state_dict(model, start, adapter_name=REFERENCE)
        model.set_adapter(POLICY)


def _check_kind(config: Any, task: Task) -> None:
    """Refuse adapters whose switched-off state is not the base, or that scoring would pass by."""
    kind = getattr(config.peft_type, "value", config.peft_type)
    if config.task_type not in (None, task):
        trained = "reward model" if task == REWARDS else "language model"
        cure = "; write it into its base first (burnish merge)" if task == REWARDS else ""
        raise ConfigError(f"an adapter for {config.task_type} can't train a {trained}; task_type is {task}{cure}")
    if kind in _OPENS_MORE:
        raise ConfigError(f"{kind} opens other files than the adapter's own, which is not supported; use LoRA")
    if getattr(config, "megatron_config", None) is not None:
        raise ConfigError("megatron_config has peft import a module by name, which is not supported; leave it out")
    if config.is_prompt_learning:
        raise ConfigError(f"{kind} adds virtual tokens, which is not supported; use LoRA")
    start = str(getattr(config, "init_lora_weights", ""))
    if start.startswith(_MOVES_BASE):
        raise ConfigError(
            f"init_lora_weights={start} moves the base's own weights, so that the adapter switched off is no "
            "reference; use the default start"
        )
    if getattr(config, "bias", "none") not in ("none", None):
        raise ConfigError(f"bias={config.bias} trains the base's own biases, which no reference would keep; use none")


def _check_names(model: nn.Module, config: Any) -> None:
    modules = [name for name, _ in model.named_modules() if name]
    parameters = [name for name, _ in model.named_parameters()]
    layers, bare = _layer_names(model), {".".join(name.split(".")[-2:]) for name in parameters}
    targets = getattr(config, "target_modules", None)
    if isinstance(targets, str) and targets != ALL_LINEAR:
        try:
            found = any(re.fullmatch(targets, name) for name in modules)
        except re.error as error:
            raise ConfigError(f"--lora_target_modules {targets!r} is no regular expression: {error}") from error
        if not found:
            raise ConfigError(f"--lora_target_modules {targets!r} matches no layer; there are {_listed(layers)}")
        targets = None
    for flag, names, existing, shown in (
        ("lora_target_modules", () if targets == ALL_LINEAR else targets, modules, layers),
        ("lora_modules_to_save", getattr(config, "modules_to_save", None), modules, layers),
        ("lora_target_parameters", getattr(config, "target_parameters", None), parameters, bare),
    ):
        unknown = [name for name in sorted(names or ()) if not _occurs(name, existing)]
        if unknown:
            raise ConfigError(f"--{flag}: the model has no {', '.join(unknown)}; it has {_listed(shown)}")


def _occurs(name: str, existing: list[str]) -> bool:
    return any(full == name or full.endswith(f".{name}") for full in existing)


def _layer_names(model: nn.Module) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_layer(module)}


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Embedding) or type(module).__name__ == "Conv1D"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN_NAMES]) + (", …" if len(ordered) > _SHOWN_NAMES else "")


def _check_head(model: PeftModel) -> None:
    """Refuse adapters inside the output head: it is applied by its weight, which would pass the adapter by."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    base: Any = model.get_base_model()
    head = base.get_output_embeddings()
    inside = isinstance(head, BaseTunerLayer | AuxiliaryTrainingWrapper) and not isinstance(head, ModulesToSaveWrapper)
    if inside:
        raise ConfigError("an adapter on the output head is not supported; train it whole: --lora_modules_to_save")


@contextmanager
def reference_weights(model: PeftModel) -> Iterator[None]:
    """Make an adapted model compute as its reference inside the block, and as before after it.

    A fresh adapter is switched off (outputs equal the base's bit for bit); for a loaded adapter, its frozen start
    takes its place. Which parameters are trainable is put back exactly.

    Raises:
        TypeError: the model carries no adapter.
    """
    if not has_adapter(model):
        raise TypeError("only a model with an adapter holds its own reference")
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    tuner: Any = model.base_model
    try:
        if REFERENCE in model.peft_config:
            model.set_adapter(REFERENCE, inference_mode=True)
        else:
            tuner.disable_adapter_layers()
        yield
    finally:
        if REFERENCE in model.peft_config:
            model.set_adapter(POLICY)
        else:
            tuner.enable_adapter_layers()
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)


def base_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Every module that belongs to the base, adapters' own parts left out."""
    children = dict(model.named_children())
    is_adapter_layer = "base_layer" in children
    if not is_adapter_layer:
        yield model
    for name, child in children.items():
        if not is_adapter_layer or name == "base_layer":
            yield from base_modules(child)
