"""A policy from its config alone: modules and shapes on torch's meta device, and not a byte of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.errors import ConfigError
from burnish.models.adapters import add_adapter
from burnish.models.folder import check_config, is_adapter_folder
from burnish.models.hub import Hub, resolve_model_path
from burnish.models.load import base_of_adapter, read_config
from burnish.models.quiet import quiet_transformers


def find_config_folder(settings: Any, *, hub: Hub) -> Path:
    """The policy's folder, of which config and tokenizer are fetched and no weights.

    Raises:
        ConfigError: no model named.
        ModelError: as resolve_model_path.
        HubError: as resolve_model_path.
    """
    if settings.model_name_or_path is None:
        raise ConfigError("no model given: --model_name_or_path takes a local folder or a hub id")
    return resolve_model_path(settings.model_name_or_path, hub, settings.model_revision, weights=False)


def sketch_policy(folder: Path, settings: Any, *, hub: Hub, use_peft: bool, has_reward_head: bool = False) -> nn.Module:
    """The policy in train mode on the meta device, with adapters where a folder or the settings say so.

    Args:
        folder: with config.json, or an adapter's with adapter_config.json.
        settings: of model and adapter.
        hub: where an adapter's base is looked up.
        use_peft: put a fresh adapter on it.
        has_reward_head: a scalar head instead of the vocabulary's.

    Raises:
        ModelError: a config that is missing or not understood.
        ConfigError: an adapter that the model cannot have.
    """
    if is_adapter_folder(folder):
        from peft import PeftConfig

        name, revision = base_of_adapter(folder)
        base = sketch_model(resolve_model_path(name, hub, revision, weights=False), settings)
        return add_adapter(base, PeftConfig.from_pretrained(str(folder))).train()
    model = sketch_model(folder, settings, has_reward_head=has_reward_head)
    if not use_peft:
        return model
    with torch.device("meta"):
        return add_adapter(model, settings).train()


def sketch_model(folder: Path, settings: Any, *, has_reward_head: bool = False) -> Any:
    """The model of a folder's config, in train mode on the meta device, float32.

    Raises:
        ModelError: a config that is missing or not understood.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    check_config(folder, allows_reward_head=has_reward_head)
    config: Any = read_config(folder, settings)
    kind: Any = AutoModelForCausalLM
    if has_reward_head:
        kind, config.num_labels = AutoModelForSequenceClassification, 1
    attention = settings.attn_implementation or "sdpa"
    with quiet_transformers(), torch.device("meta"):
        try:
            model = kind.from_config(config, attn_implementation=attention, dtype=torch.float32)
        except ValueError:
            model = kind.from_config(config, attn_implementation="eager", dtype=torch.float32)
    return model.train()
