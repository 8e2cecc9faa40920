"""Named tensors as safetensors files: written in one pass with their hash, read back with nothing executed.

The format is that of the safetensors library, which reads the files back. We write them ourselves because the library
neither hashes nor calls fsync, and refuses tensors that share memory.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.engine.commit import FileEntry, write_file
from burnish.errors import IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

_ALIAS = "alias:"
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_MAX_NAMES = 5


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Write named tensors as one durable safetensors file, hashed on the way; a tensor with two names is written once.

    One tensor at a time is copied to the CPU and made contiguous where it is not.

    Raises:
        OSError: the disk refused; nothing is left.
        TypeError: a dtype has no place in the format.
    """
    kept, aliases = _split_aliases(tensors)
    # Wide elements first, so that each tensor starts at a multiple of its element size.
    order = sorted(kept, key=lambda name: (-kept[name].element_size(), name))
    return write_file(path, _file_chunks(kept, order, aliases))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory that belongs to the caller (not a map of the file).

    Raises:
        IntegrityError: the file is missing or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu", backend="pread") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} cannot be read as safetensors: {error}") from error
    for key, target in metadata.items():
        if key.startswith(_ALIAS) and target in tensors:
            tensors[key.removeprefix(_ALIAS)] = tensors[target]
    return tensors


def copy_tensors(saved: Mapping[str, Tensor], into: Mapping[str, Tensor], *, what: str) -> None:
    """Copy saved tensors into live ones of the same names, after checking that all of them fit.

    Args:
        saved: what a checkpoint holds.
        into: the live tensors, e.g. `dict(model.named_parameters())`; overwritten in place.
        what: what they are, for the message, e.g. "model".

    Raises:
        IntegrityError: a tensor is missing or too many, or a shape or dtype differs; nothing was copied.
    """
    import torch

    check_tensors(saved, into, what=what)
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(saved[name])


def check_tensors(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str) -> None:
    """Compare names, shapes and dtypes of saved tensors with those expected.

    Raises:
        IntegrityError: listing missing names, unexpected names, and shapes or dtypes that differ.
    """
    missing = [name for name in expected if name not in saved]
    unexpected = [name for name in saved if name not in expected]
    different = [
        f"{name}: {_describe(saved[name])} in the checkpoint, {_describe(expected[name])} in the run"
        for name in expected
        if name in saved and _describe(saved[name]) != _describe(expected[name])
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("different", different))
    faults = [f"{len(names)} {kind} ({_shorten(names)})" for kind, names in kinds if names]
    if faults:
        raise IntegrityError(f"the checkpoint's {what} tensors do not fit this run: {'; '.join(faults)}")


def tensors_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Size of tensors in bytes, as `write_tensors` will write them, without the header."""
    kept, _ = _split_aliases(tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())


def _describe(tensor: Tensor) -> str:
    return f"{_dtype_name(tensor)} {list(tensor.shape)}"


def _shorten(names: list[str]) -> str:
    rest = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f", and {rest} more" if rest > 0 else "")


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _split_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors with their first names, and further names of the same memory (tied weights)."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        first = first_names.setdefault(key, name)
        if first == name or not tensor.numel():
            kept[name] = tensor
        else:
            aliases[name] = first
    return kept, aliases


def _file_chunks(tensors: Mapping[str, Tensor], order: list[str], aliases: Mapping[str, str]) -> Iterator[memoryview]:
    metadata = {"format": "pt"} | {_ALIAS + name: target for name, target in aliases.items()}
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name in order:
        tensor = tensors[name]
        if _dtype_name(tensor) not in _DTYPES:
            raise TypeError(f"{name}: {tensor.dtype} cannot be written to a checkpoint")
        size = math.prod(tensor.shape) * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[_dtype_name(tensor)],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in order:
        yield _tensor_bytes(tensors[name])


def _tensor_bytes(tensor: Tensor) -> memoryview:
    import torch

    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    array: Any = flat.view(torch.uint8).numpy()  # shares the tensor's memory
    return memoryview(array)
