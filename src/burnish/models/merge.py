"""Writing an adapter into its base: an ordinary model folder from a LoRA run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from burnish.errors import BurnishError, ConfigError, IntegrityError, ModelError
from burnish.models.adapters import REWARDS
from burnish.models.card import model_card
from burnish.models.export import export_model
from burnish.models.folder import ADAPTER_CONFIG, CONFIG, is_adapter_folder, read_json
from burnish.models.hub import Hub
from burnish.models.load import load_causal_lm
from burnish.models.quiet import quiet_transformers
from burnish.models.reward import load_reward_model
from burnish.models.settings import ModelSettings
from burnish.models.tokenizer import has_tokenizer, read_tokenizer, set_pad_token, stop_at_end_of_text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

LOGIT_TOLERANCE = 1e-3
_PROBE_TOKENS = 16


def merge_adapter(source: Path, out: Path, *, hub: Hub = "huggingface", trust_remote_code: bool = False) -> Path:
    """Merge the adapter of a run or model folder into its base, in float32, and write an ordinary folder.

    The written folder is loaded again and must answer a few tokens as the adapter did; otherwise it is removed and
    the fault told.

    Args:
        source: a run directory (its `model/` is taken) or a folder with adapter_config.json.
        out: the folder to write; it must not exist.
        hub: where the base is looked up if it is no local folder.
        trust_remote_code: run Python code that comes with the base.

    Returns:
        The folder that was written.

    Raises:
        ConfigError: `out` exists.
        ModelError: `source` holds no adapter, or its base is not found.
        IntegrityError: the folder could not be written, or does not compute what base and adapter do.
    """
    folder = _adapter_folder(source)
    if out.exists():
        raise ConfigError(f"{out} exists already; name a new folder")
    settings, rewards = ModelSettings(trust_remote_code=trust_remote_code), _gives_rewards(folder)
    load = partial(_load, settings=settings, hub=hub, gives_rewards=rewards)
    model: Any = load(folder)
    probe = _probe(model)
    expected = _logits(model, probe)
    base = model.name_or_path or model.get_base_model().name_or_path
    merged = merge_weights(model)
    tokenizer = read_tokenizer(folder, trust_remote_code=trust_remote_code) if has_tokenizer(folder) else None
    if tokenizer is not None:
        stop_at_end_of_text(merged, tokenizer)
    method = "merged reward adapter" if rewards else "merged adapter"
    card = model_card(base_model=base, method=method, settings={"adapter": folder.parent.name})
    export_model(merged, tokenizer, out, card=card)
    try:
        _check_equal(load(out), probe, expected, out)
    except BurnishError:
        shutil.rmtree(out)
        raise
    return out


def _gives_rewards(folder: Path) -> bool:
    return read_json(folder / ADAPTER_CONFIG).get("task_type") == REWARDS


def _load(folder: Path, *, settings: ModelSettings, hub: Hub, gives_rewards: bool) -> nn.Module:
    if not gives_rewards:
        return load_causal_lm(str(folder), settings, hub=hub)
    tokenizer: Any = read_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    set_pad_token(tokenizer, None)
    named = replace(settings, model_name_or_path=str(folder))
    return load_reward_model(named, hub=hub, pad_id=tokenizer.pad_token_id, needs_head=True)


def _adapter_folder(source: Path) -> Path:
    if not source.is_dir():
        raise ModelError(f"no folder {source}; give a run directory or a folder with {ADAPTER_CONFIG}")
    for folder in (source / "model", source):
        if is_adapter_folder(folder):
            return folder
    whole = next((folder for folder in (source / "model", source) if (folder / CONFIG).is_file()), None)
    if whole is not None:
        raise ModelError(f"{whole} is a whole model already, there is nothing to merge")
    raise ModelError(f"{source} holds no adapter: neither {ADAPTER_CONFIG} nor model/{ADAPTER_CONFIG}")


def merge_weights(model: PeftModel) -> PreTrainedModel:
    """Fold the policy's adapter into its base, in place, and return the plain model.

    Where head and embedding share their weights, the head gets its own first: an adapter on one of them would
    otherwise change both. They are shared again if they are equal afterwards.
    """
    tuned: Any = model.get_base_model()
    tied = _untie(tuned)
    with quiet_transformers():
        merged: Any = model.merge_and_unload(adapter_names=["default"])  # pyright: ignore[reportCallIssue]
    if tied:
        _tie_again(merged)
    return merged


def _weight_of(module: Any) -> Tensor:
    return getattr(module, "base_layer", module).weight


def _untie(model: Any) -> bool:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None:
        return False  # a reward model
    if _weight_of(embedding) is not _weight_of(head):
        return False
    owner = getattr(head, "base_layer", head)
    owner.weight = nn.Parameter(_weight_of(head).detach().clone(), requires_grad=False)
    return True


def _tie_again(model: Any) -> None:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_same = torch.equal(embedding.weight, head.weight)
    if is_same:
        head.weight = embedding.weight
    else:
        model.all_tied_weights_keys = {}
    model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = is_same


def _probe(model: Any) -> Tensor:
    vocabulary = model.get_base_model().config.get_text_config().vocab_size
    return torch.randint(0, vocabulary, (1, _PROBE_TOKENS), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    return model.eval()(input_ids=ids, use_cache=False).logits.float()


def _check_equal(model: Any, probe: Tensor, expected: Tensor, out: Path) -> None:
    difference = float((_logits(model, probe) - expected).abs().max())
    if not difference <= LOGIT_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise IntegrityError(
            f"{out} does not compute what base and adapter do (logits differ by {difference:.3g}) and was removed; "
            "the adapter is of a kind that can't be written into this base."
        )
