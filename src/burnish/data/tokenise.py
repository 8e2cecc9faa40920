"""Examples → token ids and counted positions, in batches through the fast tokenizer.

Ids are those that TRL 1.16 makes. Conversations: the prompt is rendered with the generation prompt, prompt and
completion as one conversation, and neither gets further special tokens. Plain text: end-of-text is appended to the
completion, and the tokenizer adds its special tokens. Each completion is tokenised together with its prompt, and begins
where the ids of prompt and of prompt plus completion part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from burnish.data.backend import fast_backend
from burnish.data.examples import Example
from burnish.data.fast_tokens import BatchTokenizer, CheckedFastTokenizer, load_fastokens
from burnish.data.rows import RowError
from burnish.data.settings import TokenizerBackend
from burnish.data.splitting import PromptCutter
from burnish.data.texts import RenderedText, render_conversations, render_plain
from burnish.data.token_weights import weigh_tokens
from burnish.data.turns import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKED_CUTS = 8
"""Prompts whose parts' ids are compared with the whole's before any cut is trusted."""


@dataclass(slots=True)
class Encoded:
    """One example as token ids, not yet truncated."""

    prompt_ids: list[int]
    completion_ids: list[list[int]]
    masks: list[np.ndarray | None]
    """Counted positions of each completion, bool (tokens,); None counts all."""
    notes: set[str] = field(default_factory=set)
    """Kinds of the report that this example counts for."""
    weights: list[np.ndarray] | None = None
    """Weight of each token of each completion, float32 (tokens,); None weighs each 1."""


def choose_batch_tokenizer(tokenizer: PreTrainedTokenizerBase, wanted: TokenizerBackend) -> BatchTokenizer:
    """Return the function that tokenises many texts: fastokens, checked, where it can; else the tokenizer's own."""
    backend = fast_backend(tokenizer)

    def tokenise(texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    fast = load_fastokens(backend) if wanted == "auto" else None
    return tokenise if fast is None else CheckedFastTokenizer(fast, tokenise)


Rendered = RenderedText | Encoded | RowError
"""An example as text, or as the ids that the row gave, or why it is neither."""


class ExampleEncoder:
    """Renders and tokenises examples with one tokenizer, at once or as two steps on two threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, backend: TokenizerBackend = "huggingface") -> None:
        """Prepare for any number of calls of `encode`, which raise FastTokensDiffer where fastokens is no use."""
        self._tokenizer = tokenizer
        self._backend: TokenizerBackend = backend
        self._cutter: PromptCutter | None = PromptCutter(tokenizer)
        self._cuts_to_check = CHECKED_CUTS
        marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_ids = frozenset(marked.union(tokenizer.all_special_ids))
        written = [re.escape(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special_words = re.compile("|".join(written)) if written else None

    @cached_property
    def _tokenise(self) -> BatchTokenizer:
        """Made by who tokenises first: fastokens takes up to a second to read a tokenizer."""
        return choose_batch_tokenizer(self._tokenizer, self._backend)

    def encode(self, examples: Sequence[Example]) -> list[Encoded | RowError]:
        """Encode any mixture of plain, conversational and token-id examples; those that can't be give the reason.

        Raises:
            DataError: there are conversations, and the tokenizer has no chat template.
        """
        return self.tokenise(examples, self.render(examples))

    def render(self, examples: Sequence[Example]) -> list[Rendered]:
        """Do the part of `encode` that is Python's; raises as it does."""
        conversations = [example for example in examples if example.layout == "conversational"]
        talks = iter(render_conversations(conversations, self._tokenizer))
        return [next(talks) if e.layout == "conversational" else self._without_template(e) for e in examples]

    def tokenise(self, examples: Sequence[Example], rendered: Sequence[Rendered]) -> list[Encoded | RowError]:
        """Do the rest of `encode`, of which the tokenizer does most without Python's lock."""
        results: list[Any] = list(rendered)
        for special_tokens in (False, True):
            wanted = [
                n
                for n, text in enumerate(results)
                if isinstance(text, RenderedText) and text.special_tokens == special_tokens
            ]
            texts = [results[n] for n in wanted]
            for number, text, encoded in zip(wanted, texts, self._encode_texts(texts), strict=True):
                results[number] = weigh_tokens(encoded, examples[number], text, self._tokenizer)
        for number, (example, result) in enumerate(zip(examples, results, strict=True)):
            if isinstance(result, Encoded):
                self._note_missing_end(example, result)
                self._note_special_words(example, result)
                results[number] = _as_one_text(result) if example.counted == "all" else result
        return results

    def _without_template(self, example: Example) -> Encoded | RowError | RenderedText:
        return render_plain(example, self._tokenizer) if example.layout == "plain" else self._given_ids(example)

    def _given_ids(self, example: Example) -> Encoded | RowError:
        completions = cast("list[list[int]]", example.completions)
        prompt = cast("list[int]", example.prompt)
        highest = max((max(ids) for ids in (prompt, *completions) if ids), default=0)
        size = max(len(self._tokenizer), self._tokenizer.vocab_size)
        if highest >= size:
            return RowError(f"token id {highest} is outside the vocabulary of {size}")
        encoded = Encoded(prompt, list(completions), [None] * len(completions))
        return weigh_tokens(encoded, example, None, self._tokenizer)

    def _encode_texts(self, texts: list[RenderedText]) -> list[Encoded]:
        """Tokenise texts in one call, each prompt once up to its last special token."""
        if not texts:
            return []
        special = texts[0].special_tokens
        cuts = [self._cut(text) for text in texts]
        pieces: list[str] = []
        for text, cut in zip(texts, cuts, strict=True):
            pieces += [text.prompt[:cut]] if cut else []
            pieces += [text.prompt[cut:], *(whole[cut:] for whole in text.whole)]
        ids = iter(self._tokenise(pieces, special))
        encoded: list[Encoded] = []
        for text, cut in zip(texts, cuts, strict=True):
            head = next(ids) if cut else []
            encoded.append(self._split(text, head, next(ids), [next(ids) for _ in text.whole]))
        return encoded

    def _cut(self, text: RenderedText) -> int:
        if self._cutter is None or text.special_tokens:
            return 0
        cut = self._cutter.cut(text.prompt, text.whole)
        if cut and self._cuts_to_check:
            self._cuts_to_check -= 1
            whole, head, tail = self._tokenise([text.whole[0], text.whole[0][:cut], text.whole[0][cut:]], False)
            if whole != head + tail:
                self._cutter = None
                return 0
        return cut

    def _split(
        self, text: RenderedText, head: list[int], prompt_tail: list[int], whole_tails: list[list[int]]
    ) -> Encoded:
        """Cut each sequence where the prompt ends, at the same place in all; `head` begins them all."""
        length = min((common_prefix(prompt_tail, tail) for tail in whole_tails), default=len(prompt_tail))
        masks = [
            None if spans is None else _mask(whole, spans, self._tokenizer)[len(head) + length :]
            for whole, spans in zip(text.whole, text.spans, strict=True)
        ]
        prompt = head + prompt_tail[:length] if head else prompt_tail[:length]
        encoded = Encoded(prompt, [tail[length:] for tail in whole_tails], masks, set(text.notes))
        if length < len(prompt_tail) and text.begins_with_assistant:
            alike = all(whole.startswith(text.prompt) for whole in text.whole)
            encoded.notes.add("prompt_merged" if alike else "prompt_not_prefix")
        return encoded

    def _note_special_words(self, example: Example, encoded: Encoded) -> None:
        """Note conversations whose words hold a special token: it is tokenised as one, and may end a turn early."""
        if self._special_words is None or example.layout != "conversational":
            return
        if any(map(self._special_words.search, example.words)):
            encoded.notes.add("special_in_text")

    def _note_missing_end(self, example: Example, encoded: Encoded) -> None:
        """Note conversations whose completions do not end with an end-of-turn token (a line break may follow it)."""
        if example.layout == "conversational" and any(
            self._special_ids.isdisjoint(ids[-3:]) for ids in encoded.completion_ids
        ):
            encoded.notes.add("no_end_token")


def _as_one_text(encoded: Encoded) -> Encoded:
    """Prompt and completion as one text without a prompt, of which every token counts."""
    ids = encoded.prompt_ids + encoded.completion_ids[0]
    return Encoded([], [ids], [None], encoded.notes)


def common_prefix(ids: list[int], other: list[int]) -> int:
    """Return how many leading ids two sequences have in common."""
    length = len(ids)
    if other[:length] == ids:
        return length
    return next(n for n in range(length) if n >= len(other) or ids[n] != other[n])


def _mask(text: str, spans: list[Span], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return which tokens of a whole text reach into a counted span, bool (tokens,)."""
    encoding = fast_backend(tokenizer).encode(text, add_special_tokens=False)
    offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    mask = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        mask |= (offsets[:, 1] > start) & (offsets[:, 0] < end)
    return mask
