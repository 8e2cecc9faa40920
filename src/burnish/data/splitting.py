"""Where a rendered text may be cut so that its parts' ids, joined, are the ids of the whole.

Special tokens are taken out of a text before anything else happens to it, and what stands between two of them is
tokenised by itself. So the prompt, up to its last special token, needs to be tokenised once for all its completions.
This holds for tokenizers whose steps treat each part alike wherever it stands; others are never cut.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from burnish.data.backend import fast_backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Steps that look at nothing but the part they are given.
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Replace", "Sequence"}
_PRE_TOKENIZERS = {"ByteLevel", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "Sequence"}


class PromptCutter:
    """Finds the end of the last special token of a prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._markers = _safe_markers(tokenizer) if _treats_parts_alike(tokenizer) else []

    def cut(self, prompt: str, wholes: list[str]) -> int:
        """Return how many characters of the prompt stand before the cut; 0 where there is none.

        Args:
            prompt: the rendered prompt.
            wholes: the prompt with each completion; a cut lies within what they have in common.
        """
        ends = ((prompt.rfind(marker), len(marker)) for marker in self._markers)
        at = max((start + length for start, length in ends if start >= 0), default=0)
        return at if at and all(whole.startswith(prompt[:at]) for whole in wholes) else 0


def _treats_parts_alike(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend = fast_backend(tokenizer)
    normalizers, pre_tokenizers = _steps(backend.normalizer), _steps(backend.pre_tokenizer)
    known = all(step["type"] in _NORMALIZERS for step in normalizers)
    known = known and bool(pre_tokenizers) and all(step["type"] in _PRE_TOKENIZERS for step in pre_tokenizers)
    return known and not any(step.get("add_prefix_space") for step in pre_tokenizers)


def _steps(component: Any) -> list[dict[str, Any]]:
    if component is None:
        return []
    state = json.loads(component.__getstate__())
    return [state, *state.get("normalizers", ()), *state.get("pretokenizers", ())]


def _safe_markers(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the special tokens of the chat template that are found in any text alike, whatever stands around them."""
    template = json.dumps(tokenizer.chat_template, ensure_ascii=False)
    tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.content]
    plain = [
        token.content
        for token in tokens
        if token.content in template and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
    ]
    # A token of the vocabulary that strips the space around it could take a part's first or last characters.
    if any(token.lstrip or token.rstrip for token in tokens):
        return []
    return [marker for marker in plain if not any(_overlap(marker, token.content) for token in tokens)]


def _overlap(marker: str, other: str) -> bool:
    """Whether another special token could be found across one end of this one, or around it."""
    if marker == other:
        return False
    lengths = range(1, min(len(marker), len(other)))
    return marker in other or any(marker.endswith(other[:n]) or other.endswith(marker[:n]) for n in lengths)
