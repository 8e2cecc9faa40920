"""fastokens in place of the Hugging Face tokenizer: the same ids many times faster, or none of it.

It is used where it is installed (`pip install burnish[fast]`), can read the tokenizer, and gives the Hugging Face
tokenizer's ids on a sample of the texts: the first ones before anything is kept, and one in SAMPLE_EVERY after them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any, cast

import numpy as np

FIRST_SAMPLE = 200
"""Texts that are compared before fastokens is trusted."""
SAMPLE_EVERY = 200
"""One of so many later texts is compared."""

BatchTokenizer = Callable[[Sequence[str], bool], list[list[int]]]
"""(texts, whether to add special tokens) → ids of each text."""


class FastTokensDiffer(Exception):  # noqa: N818 (a finding, after which the work begins anew)
    """fastokens gave other ids than the Hugging Face tokenizer; the message shows the text."""


def fastokens_version() -> str | None:
    """Return the installed version of fastokens, or None."""
    try:
        return version("fastokens")
    except PackageNotFoundError:
        return None


def load_fastokens(backend: Any) -> Any | None:
    """Return fastokens' tokenizer for a tokenizers.Tokenizer, or None where it is absent or cannot read it."""
    if fastokens_version() is None:
        return None
    from fastokens import Tokenizer  # pyright: ignore[reportMissingImports]

    try:
        return Tokenizer.from_json_str(backend.to_str())
    except Exception:  # whatever a tokenizer that it does not know makes it raise
        return None


class CheckedFastTokenizer:
    """Tokenises with fastokens, and compares a sample with what the other tokenizer says."""

    def __init__(self, fast: Any, exact: BatchTokenizer) -> None:
        """Begin.

        Args:
            fast: fastokens' Tokenizer.
            exact: the Hugging Face tokenizer's batch function.
        """
        self._fast, self._exact = fast, exact
        self._seen = 0

    def __call__(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Return the ids of each text.

        Raises:
            FastTokensDiffer: a text of the sample has other ids.
        """
        flat, offsets = self._fast.encode_batch_flat(list(texts), add_special_tokens)
        ids = array("i")
        ids.frombytes(flat)
        # Slices of an array are compact, and are sliced, joined and compared like lists.
        result = [
            cast("list[int]", ids[start:end]) for start, end in pairwise(np.frombuffer(offsets, np.uint64).tolist())
        ]
        self._compare(texts, result, add_special_tokens)
        return result

    def _compare(self, texts: Sequence[str], ids: list[list[int]], add_special_tokens: bool) -> None:
        first = max(0, min(FIRST_SAMPLE - self._seen, len(texts)))
        sample = [*range(first), *range(first, len(texts), SAMPLE_EVERY)]
        self._seen += len(texts)
        expected = self._exact([texts[n] for n in sample], add_special_tokens)
        for n, exact in zip(sample, expected, strict=True):
            if exact != list(ids[n]):
                raise FastTokensDiffer(texts[n])
