"""Fingerprints of what prepared rows depend on: the tokenizer with its template, and the code itself."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from burnish.data.backend import fast_backend
from burnish.data.fast_tokens import fastokens_version

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def sha256_of(*parts: str | bytes) -> str:
    """Return the sha256 of some texts, told apart from their concatenation."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(f"{len(encoded)}:".encode())
        digest.update(encoded)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 over all that decides ids: vocabulary, merges, rules, special tokens and chat template.

    The padding and truncation that a tokenizer was last called with are left out.
    """
    backend = fast_backend(tokenizer)
    template = json.dumps(tokenizer.chat_template, sort_keys=True)
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return sha256_of(backend.to_str(), template, special)


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return a sha256 over this room's source and the versions that it renders and tokenises with."""
    import tokenizers
    import transformers

    sources = sorted(Path(__file__).parent.rglob("*.py"))
    versions = (tokenizers.__version__, transformers.__version__, str(fastokens_version()))
    return sha256_of(*(path.read_bytes() for path in sources), *versions)
