"""Writing a model as an ordinary Hugging Face folder, whole or not at all.

The weights are the float32 masters that were trained, whatever dtype the model once came in: rounding them is the
user's choice, made when loading (`dtype=torch.bfloat16`). A LoRA run exports its adapter alone.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from burnish.errors import ConfigError, IntegrityError
from burnish.models.adapters import POLICY, has_adapter
from burnish.models.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, WEIGHTS, WEIGHTS_INDEX
from burnish.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CARD = "README.md"
CHAT_TEMPLATE = "chat_template.jinja"


def export_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    *,
    card: str | None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights or adapter, config, generation config, tokenizer, chat template and card to a folder.

    Everything is written and synced in a folder beside it first. A new folder then appears by one rename. In a folder
    that exists, files of the same names are replaced and other files stay, except weights of an earlier export; its
    config comes last, so that a half-replaced folder never loads.

    Args:
        model: a transformers model, or a peft model (whose adapter alone is written).
        tokenizer: None leaves it out.
        folder: where to; parents are made.
        card: text of README.md; None writes none.
        state_dict: weights gathered from elsewhere (a sharded model); None takes the model's own.

    Raises:
        ConfigError: the folder is a file.
        IntegrityError: it could not be written (disk full, no permission); nothing half-written is left.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the model")
    folder = folder.absolute()
    draft = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        draft.mkdir(parents=True)
        _write_files(model, tokenizer, draft, card=card, state_dict=state_dict)
        _publish(draft, folder)
    except OSError as error:
        cause = error.strerror or str(error)
        raise IntegrityError(f"the model could not be written to {folder}: {cause}") from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise IntegrityError(f"the model could not be written to {folder}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_files(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
    *,
    card: str | None,
    state_dict: Mapping[str, Tensor] | None,
) -> None:
    weights = None if state_dict is None else dict(state_dict)
    with quiet_transformers():
        if has_adapter(model):
            # False, for "auto" asks the hub whether the vocabulary grew; new rows are kept by lora_modules_to_save.
            model.save_pretrained(
                str(folder), selected_adapters=[POLICY], state_dict=weights, save_embedding_layers=False
            )
            (folder / CARD).unlink(missing_ok=True)  # peft's empty form
        else:
            _write_model(model, folder, weights)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
    if card is not None:
        (folder / CARD).write_text(card, encoding="utf-8")


def _write_model(model: Any, folder: Path, weights: dict[str, Tensor] | None) -> None:
    """Write weights and configs, the generation config as it came: transformers would refuse to save one that it reads.

    Many published models set a temperature without do_sample, which loads with a warning and fails to save.
    """
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    try:
        if own is not None:
            model.generation_config = GenerationConfig()
        model.save_pretrained(str(folder), state_dict=weights)
    finally:
        if own is not None:
            model.generation_config = own
    if own is not None:
        own.to_json_file(str(folder / "generation_config.json"), use_diff=True)


def _publish(draft: Path, folder: Path) -> None:
    for path in (*draft.rglob("*"), draft):
        _sync(path)
    if not folder.exists():
        draft.rename(folder)
        _sync(folder.parent)
        return
    for stale in _earlier_export(folder):
        stale.unlink(missing_ok=True)
    # Configs last: until they are back, the folder is no model to any loader.
    for new in sorted(draft.rglob("*"), key=lambda path: path.name in (CONFIG, ADAPTER_CONFIG)):
        target = folder / new.relative_to(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        if new.is_file():
            new.replace(target)
    _sync(folder)


def _earlier_export(folder: Path) -> list[Path]:
    """What an earlier export left that the next one may not overwrite, its configs first."""
    names = (CONFIG, ADAPTER_CONFIG, WEIGHTS_INDEX, WEIGHTS, ADAPTER_WEIGHTS, CHAT_TEMPLATE)
    return [*(folder / name for name in names), *folder.glob("model-*-of-*.safetensors")]


def _sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
