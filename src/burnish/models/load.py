"""Loading a policy: strict about names, shapes and values, so that nothing trains from weights it did not mean.

Master weights are float32 whatever the file holds; compute precision is the engine's business.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from burnish.console import notice
from burnish.device.attention import FLEX
from burnish.errors import ConfigError, ModelError, NumericsError
from burnish.models.adapters import base_modules, load_adapter
from burnish.models.folder import ADAPTER_CONFIG, check_model_folder, is_adapter_folder, read_json
from burnish.models.hub import Hub, resolve_model_path
from burnish.models.quiet import quiet_transformers
from burnish.models.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_SDPA_REFUSED = "scaled_dot_product_attention"
_FLEX_REFUSED = "torch's flex_attention"
_SHOWN_KEYS = 3


def load_policy(
    settings: ModelSettings, *, hub: Hub = "huggingface", storage_dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load the policy that the settings name, on the CPU, in train mode, with its dropout settled.

    A folder with a peft adapter gives its base with the adapter, trainable, and the adapter's start kept frozen beside
    it as reference (see burnish.models.adapters.reference_weights).

    Raises:
        ConfigError: no model named, or an attention kernel that the model lacks.
        ModelError: as load_causal_lm.
        HubError: the hub is out of reach.
        NumericsError: a weight is NaN or infinite.
    """
    if settings.model_name_or_path is None:
        raise ConfigError("no model given: --model_name_or_path takes a local folder or a hub id")
    model = load_causal_lm(settings.model_name_or_path, settings, hub=hub, storage_dtype=storage_dtype)
    if settings.disable_dropout:
        disable_dropout(model)
    return model.train()


def load_causal_lm(
    name: str,
    settings: ModelSettings,
    *,
    hub: Hub = "huggingface",
    storage_dtype: torch.dtype = torch.float32,
    flag: str = "--model_name_or_path",
) -> PreTrainedModel:
    """Load a language model (policy, reference, or an adapter on its base) as the other settings say.

    Args:
        name: local folder or hub id.
        settings: revision, attention kernel and trust; model_name_or_path is not looked at.
        hub: where ids are looked up.
        storage_dtype: what the weights are held in; an adapter's are float32 always.
        flag: the setting that messages should mention.

    Returns:
        The model, or a peft model around it, on the CPU; `name_or_path` is the hub id or the absolute folder.

    Raises:
        ModelError: a folder that is incomplete, damaged, quantised, not a decoder with a head, or whose weights are
            not exactly those that its config asks for.
        NumericsError: a weight is NaN or infinite; names the tensor.
    """
    folder = resolve_model_path(
        name, hub, settings.model_revision, trust_remote_code=settings.trust_remote_code, flag=flag
    )
    if is_adapter_folder(folder):
        name, revision = base_of_adapter(folder)
        settings = replace(settings, model_revision=revision)
        base = load_causal_lm(name, settings, hub=hub, storage_dtype=storage_dtype, flag=flag)
        model: Any = load_adapter(base, folder)
        check_finite(model, str(folder))
        return model
    check_model_folder(folder)
    model = _read_model(folder, settings, storage_dtype)
    model.config._name_or_path = model.name_or_path = str(folder) if Path(name).expanduser().is_dir() else name
    if model.get_output_embeddings() is None:
        raise ModelError(f"{folder} ({type(model).__name__}) has no output embeddings; burnish trains language models")
    check_finite(model, str(folder))
    return model


def base_of_adapter(folder: Path) -> tuple[str, str]:
    """Name and revision of the model that an adapter was made for."""
    config = read_json(folder / ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise ModelError(f"{folder / ADAPTER_CONFIG} names no base model; set its base_model_name_or_path")
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ModelError(
            f"the base model {base} of the adapter in {folder} is not there; "
            f"set base_model_name_or_path in its {ADAPTER_CONFIG} to where it is now"
        )
    return base, config.get("revision") or "main"


def _read_model(folder: Path, settings: ModelSettings, storage_dtype: torch.dtype) -> PreTrainedModel:
    wanted = settings.attn_implementation
    try:
        return _from_pretrained(folder, settings, storage_dtype, wanted or "sdpa")
    except ValueError as error:
        if wanted == FLEX:
            raise ConfigError(f"{folder} has no {FLEX}; leave --attn_implementation out") from error
        if _SDPA_REFUSED not in str(error):
            raise
        if wanted is not None:
            raise ConfigError(f"{folder} has no sdpa attention; use --attn_implementation eager") from error
        notice(f"attention: eager, for the model in {folder} has no sdpa")
        return _from_pretrained(folder, settings, storage_dtype, "eager")


def _from_pretrained(
    folder: Path, settings: ModelSettings, storage_dtype: torch.dtype, attention: str
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            config = read_config(folder, settings)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                config=config,
                dtype=storage_dtype,
                # Always said aloud: a config from the hub may not choose code to run.
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=settings.trust_remote_code,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged config or remote code raises
        if _SDPA_REFUSED in str(error) or _FLEX_REFUSED in str(error):
            raise
        raise ModelError(f"the model in {folder} can't be loaded: {_cause(error)}") from error
    model, info = loaded
    _check_loading(folder, info)
    return model


def read_config(folder: Path, settings: ModelSettings) -> PreTrainedConfig:
    """The config of a model folder.

    Raises:
        ModelError: not understood, in need of code that is not trusted, or of an encoder-decoder model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            str(folder), trust_remote_code=settings.trust_remote_code, local_files_only=True
        )
    except Exception as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise ModelError(
                f"the model in {folder} brings its own Python code; run it with --trust_remote_code if you trust it"
            ) from error
        raise ModelError(f"{folder}/config.json is not understood: {_cause(error)}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{folder} is an encoder-decoder model; burnish trains decoder-only language models")
    return config


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0][:200]}" if lines else type(error).__name__


def _check_loading(folder: Path, info: dict[str, Any]) -> None:
    """Refuse weights that are not exactly the model's: transformers would fill the gaps at random and go on."""
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(key if isinstance(key, str) else key[0] for key in info[kind])
        if keys:
            more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
            word = {
                "missing_keys": "lacks",
                "unexpected_keys": "has besides",
                "mismatched_keys": "has another shape of",
            }
            problems.append(f"{word[kind]} {', '.join(keys[:_SHOWN_KEYS])}{more}")
    if problems:
        raise ModelError(
            f"the weights in {folder} don't fit its config.json: the file {'; '.join(problems)}\n"
            "Fetch the model again, or correct its config.json."
        )


def check_finite(model: nn.Module, where: str) -> None:
    """Refuse a model with a weight that is NaN or infinite; costs one sum of each tensor.

    Raises:
        NumericsError: names the first such tensor and how many of its values are not finite.
    """
    for name, tensor in model.state_dict().items():
        # A sum keeps every NaN and infinity; it may also overflow by itself, hence the second look.
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise NumericsError(
                f"{where}: {bad} of {tensor.numel()} values of {name} are NaN or infinite; "
                "fetch the model again, or train from an earlier one"
            )


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability of the base model to 0, in modules and config; an adapter's own dropout stays.

    Attention reads its probability from a plain attribute, so all float attributes named so are set as well.
    """
    for module in base_modules(model):
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _zero_dropouts(module)
    config = getattr(model, "config", None)
    for part in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))):
        if part is not None:
            _zero_dropouts(part)


def _zero_dropouts(holder: object) -> None:
    for key, value in vars(holder).items():
        named = "dropout" in key or key.endswith("pdrop") or key == "layerdrop"
        if named and isinstance(value, float):
            setattr(holder, key, 0.0)
