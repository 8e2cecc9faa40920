"""The Rust tokenizer inside a fast tokenizer, as it is before any call's padding and truncation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from burnish.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fast_backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the tokenizers.Tokenizer of a fast tokenizer, without the padding and truncation of its last call.

    Raises:
        DataError: the tokenizer is not fast.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"rows are tokenised by fast tokenizers, and {type(tokenizer).__name__} is none; "
            "load it with AutoTokenizer.from_pretrained from a folder with tokenizer.json"
        )
    backend.no_truncation()
    backend.no_padding()
    return backend
