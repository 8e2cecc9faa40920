"""What a model folder must hold, checked on its files before any of them is trusted or any weight is read.

A folder comes from strangers: names inside its files may not lead out of it, and pickles are not opened.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from burnish.errors import ModelError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_OTHER_HEADS = re.compile(r"For(SequenceClassification|TokenClassification|MaskedLM|QuestionAnswering|MultipleChoice)$")


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds a peft adapter instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object of a model folder.

    Raises:
        ModelError: unreadable, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is no readable JSON ({error}); fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object; fetch the model again")
    return content


def check_model_folder(folder: Path, *, allows_reward_head: bool = False) -> None:
    """Refuse a folder that holds no whole language model that can be trained, naming file and cure.

    Args:
        folder: a local folder.
        allows_reward_head: accept one with a scalar head as well.

    Raises:
        ModelError: config.json or weights missing or truncated, quantised weights, another kind of model, or a file
            name that leads out of the folder.
    """
    check_config(folder, allows_reward_head=allows_reward_head)
    for file in weight_files(folder):
        check_safetensors(file)


def check_config(folder: Path, *, allows_reward_head: bool = False) -> None:
    """Refuse a folder whose config.json is missing or describes what cannot be trained; looks at no weights.

    Raises:
        ModelError: as check_model_folder.
    """
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} has no {CONFIG}; a model folder holds {CONFIG}, {WEIGHTS} and tokenizer files")
    config = read_json(folder / CONFIG)
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "quantised") if isinstance(quantization, dict) else "quantised"
        raise ModelError(
            f"{folder} is a quantised checkpoint ({method}), which can't be trained here; "
            "take the model's original float weights (bf16 or fp32), with --use_peft to save memory"
        )
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{folder} is an encoder-decoder model; burnish trains decoder-only language models")
    for architecture in config.get("architectures") or []:
        is_reward = allows_reward_head and str(architecture).endswith("ForSequenceClassification")
        if _OTHER_HEADS.search(str(architecture)) and not is_reward:
            raise ModelError(f"{folder} holds a {architecture}, not a language model; give a …ForCausalLM checkpoint")
    explicit = config.get("transformers_weights")
    if explicit is not None and Path(str(explicit)).name != explicit:
        raise ModelError(f"{folder / CONFIG} names weights outside its folder ({explicit}); don't use this model")


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files that hold a folder's weights, each existing and inside the folder.

    Raises:
        ModelError: none, or one that the index names is missing or elsewhere.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        raise _no_weights(folder)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} has no weight_map; fetch the model again")
    files = []
    for name in sorted({str(name) for name in weight_map.values()}):
        if Path(name).name != name:
            raise ModelError(f"{index} names weights outside its folder ({name}); don't use this model")
        if not (folder / name).is_file():
            raise ModelError(f"{folder} lacks {name}, which {WEIGHTS_INDEX} names; fetch the model again")
        files.append(folder / name)
    return files


def _no_weights(folder: Path) -> ModelError:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
    if pickles:
        return ModelError(
            f"{folder} has its weights as pickles only ({pickles[0]}), which can run code when opened; expected "
            f"{WEIGHTS}. Convert them on a machine you can lose, with transformers' save_pretrained"
        )
    if any(folder.glob("*.gguf")):
        return ModelError(f"{folder} holds GGUF files, which can't be trained; take the original model ({WEIGHTS})")
    return ModelError(f"{folder} has no weights: expected {WEIGHTS}, or {WEIGHTS_INDEX} with the files it names")


def check_safetensors(file: Path) -> None:
    """Check header and length of a safetensors file, without reading its tensors.

    Raises:
        ModelError: truncated, or not safetensors (a Git LFS pointer is told as such).
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        with file.open("rb") as start:
            pointer = start.read(7) == b"version"
        if pointer:
            raise ModelError(f"{file} is a Git LFS pointer, not the weights; run: git lfs pull") from error
        raise ModelError(f"{file} is truncated or damaged ({error}); fetch it again") from error


def check_tokenizer_files(folder: Path) -> None:
    """Refuse a tokenizer whose settings name a file outside its folder.

    Old checkpoints name files of the machine that made them; those don't exist here and harm nobody.

    Raises:
        ModelError: a named file exists outside the folder.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    for key, value in read_json(path).items():
        names = value if isinstance(value, list) else [value]
        for name in names if key.endswith(("_file", "_files")) else []:
            if isinstance(name, str) and Path(name).name != name and (folder / name).exists():
                raise ModelError(f"{path} names a file outside its folder ({key}: {name}); don't use this tokenizer")
