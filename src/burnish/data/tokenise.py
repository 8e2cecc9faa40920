"""Examples → token ids and counted positions, in batches through the fast tokenizer.

Ids are those that TRL 1.16 makes. Conversations: the prompt is rendered with the generation prompt, prompt and
completion as one conversation, and neither gets further special tokens. Plain text: end-of-text is appended to the
completion, and the tokenizer adds its special tokens. Each completion is tokenised together with its prompt, and begins
where the ids of prompt and of prompt plus completion part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from burnish.data.chat import Conversation, render
from burnish.data.examples import Example, Message
from burnish.data.rows import RowError
from burnish.data.turns import Span, counted_spans, has_other_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BatchTokenizer = Callable[[Sequence[str], bool], list[list[int]]]
"""(texts, whether to add special tokens) → ids of each text."""


@dataclass(slots=True)
class Encoded:
    """One example as token ids, not yet truncated."""

    prompt_ids: list[int]
    completion_ids: list[list[int]]
    masks: list[np.ndarray | None]
    """Counted positions of each completion, bool (tokens,); None counts all."""
    notes: set[str] = field(default_factory=set)
    """Kinds of the report that this example counts for."""


@dataclass(slots=True)
class _Text:
    """A prompt and its completions as rendered text: `whole[i]` is prompt plus completion i."""

    prompt: str
    whole: list[str]
    spans: list[list[Span] | None]
    """Counted characters of each whole text; None counts the completion."""
    special_tokens: bool
    begins_with_assistant: bool = True


def choose_batch_tokenizer(tokenizer: PreTrainedTokenizerBase) -> BatchTokenizer:
    """Return the function that tokenises many texts: the fast tokenizer's own, on all its threads."""
    backend = _backend(tokenizer)
    backend.no_truncation()
    backend.no_padding()

    def tokenise(texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    return tokenise


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    return cast("Any", tokenizer).backend_tokenizer


def encode_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, tokenise: BatchTokenizer | None = None
) -> list[Encoded | RowError]:
    """Render and tokenise examples; those that cannot be give the reason.

    Args:
        examples: any mixture of plain, conversational and token-id examples.
        tokenizer: the fast tokenizer, with a chat template if there are conversations.
        tokenise: the batch tokenizer; None chooses it.

    Raises:
        DataError: there are conversations, and the tokenizer has no chat template.
    """
    tokenise = tokenise or choose_batch_tokenizer(tokenizer)
    results: list[Encoded | RowError | _Text] = [_TO_TEXT[example.layout](example, tokenizer) for example in examples]
    _render_conversations(examples, results, tokenizer)
    for special_tokens in (False, True):
        _encode_texts(results, tokenizer, tokenise, special_tokens)
    ends = _special_ids(tokenizer)
    for example, result in zip(examples, results, strict=True):
        if isinstance(result, Encoded):
            _note(example, result, ends)
    return cast("list[Encoded | RowError]", results)


def _plain_text(example: Example, tokenizer: PreTrainedTokenizerBase) -> _Text:
    end = cast("str", tokenizer.eos_token or "")
    prompt = cast("str", example.prompt)
    whole = [prompt + (text if text.endswith(end) else text + end) for text in cast("list[str]", example.completions)]
    return _Text(prompt, whole, [None] * len(whole), special_tokens=True)


def _given_ids(example: Example, tokenizer: PreTrainedTokenizerBase) -> Encoded | RowError:
    completions = cast("list[list[int]]", example.completions)
    prompt = cast("list[int]", example.prompt)
    highest = max((max(ids) for ids in (prompt, *completions) if ids), default=0)
    size = max(len(tokenizer), tokenizer.vocab_size)
    if highest >= size:
        return RowError(f"token id {highest} is outside the vocabulary of {size}")
    return Encoded(prompt, list(completions), [None] * len(completions))


def _unrendered(_example: Example, _tokenizer: PreTrainedTokenizerBase) -> _Text:
    return _Text("", [], [], special_tokens=False)


_TO_TEXT: dict[str, Callable[..., Encoded | RowError | _Text]] = {
    "plain": _plain_text,
    "ids": _given_ids,
    "conversational": _unrendered,
}


def _render_conversations(
    examples: Sequence[Example], results: list[Encoded | RowError | _Text], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Fill in the texts of all conversational examples, rendered in one go."""
    wanted: list[Conversation] = []
    parts: list[tuple[int, int]] = []
    for number, example in enumerate(examples):
        if example.layout == "conversational":
            conversations = _conversations(example)
            parts.append((number, len(conversations)))
            wanted += conversations
    texts = render(tokenizer, wanted)
    at = 0
    for number, count in parts:
        results[number] = _gather(examples[number], wanted[at : at + count], texts[at : at + count], tokenizer)
        at += count


def _conversations(example: Example) -> list[Conversation]:
    """Return prompt plus completion for each completion, then the prompt, if there is one."""
    prompt = cast("list[Message]", example.prompt)
    options: dict[str, Any] = {"tools": example.tools, "template_kwargs": example.template_kwargs}
    completions = cast("list[list[Message]]", example.completions)
    whole = [Conversation([*prompt, *completion], **options) for completion in completions]
    return [*whole, Conversation(prompt, add_generation_prompt=True, **options)] if prompt else whole


def _gather(
    example: Example,
    conversations: list[Conversation],
    texts: list[str | RowError],
    tokenizer: PreTrainedTokenizerBase,
) -> _Text | RowError:
    for text in texts:
        if isinstance(text, RowError):
            return text
    rendered = cast("list[str]", texts)
    count = len(example.completions)
    prompt_turns = len(example.prompt)
    spans: list[list[Span] | None] = []
    for conversation, text in zip(conversations[:count], rendered, strict=False):
        found = None
        if has_other_turns(conversation, prompt_turns):
            found = counted_spans(tokenizer, conversation, prompt_turns, text)
        if isinstance(found, RowError):
            return found
        spans.append(found)
    opening = all(cast("Message", completion[0])["role"] == "assistant" for completion in example.completions)
    prompt = rendered[count] if prompt_turns else ""
    return _Text(prompt, rendered[:count], spans, special_tokens=False, begins_with_assistant=opening)


def _encode_texts(
    results: list[Encoded | RowError | _Text],
    tokenizer: PreTrainedTokenizerBase,
    tokenise: BatchTokenizer,
    special_tokens: bool,
) -> None:
    """Replace texts by ids, all texts of the batch tokenised in one call."""
    chosen = [
        (n, text) for n, text in enumerate(results) if isinstance(text, _Text) and text.special_tokens == special_tokens
    ]
    if not chosen:
        return
    ids = iter(tokenise([entry for _, text in chosen for entry in (text.prompt, *text.whole)], special_tokens))
    for number, text in chosen:
        prompt_ids = next(ids)
        whole_ids = [next(ids) for _ in text.whole]
        results[number] = _split(text, prompt_ids, whole_ids, tokenizer)


def _split(
    text: _Text, prompt_ids: list[int], whole_ids: list[list[int]], tokenizer: PreTrainedTokenizerBase
) -> Encoded:
    """Cut each sequence where the prompt ends, at the same place in all."""
    length = min((common_prefix(prompt_ids, ids) for ids in whole_ids), default=len(prompt_ids))
    masks = [
        None if spans is None else _mask(whole, spans, tokenizer)[length:]
        for whole, spans in zip(text.whole, text.spans, strict=True)
    ]
    encoded = Encoded(prompt_ids[:length], [ids[length:] for ids in whole_ids], masks)
    if length < len(prompt_ids) and text.begins_with_assistant:
        alike = all(whole.startswith(text.prompt) for whole in text.whole)
        encoded.notes.add("prompt_merged" if alike else "prompt_not_prefix")
    return encoded


def common_prefix(ids: list[int], other: list[int]) -> int:
    """Return how many leading ids two sequences have in common."""
    length = len(ids)
    if other[:length] == ids:
        return length
    return next(n for n in range(length) if n >= len(other) or ids[n] != other[n])


def _mask(text: str, spans: list[Span], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Return which tokens of a whole text reach into a counted span, bool (tokens,)."""
    encoding = _backend(tokenizer).encode(text, add_special_tokens=False)
    offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    mask = np.zeros(len(offsets), dtype=bool)
    for start, end in spans:
        mask |= (offsets[:, 1] > start) & (offsets[:, 0] < end)
    return mask


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(marked.union(tokenizer.all_special_ids))


def _note(example: Example, encoded: Encoded, ends: frozenset[int]) -> None:
    """Note conversations whose completions do not end with an end-of-turn token (a line break may follow it)."""
    if example.layout == "conversational" and any(ends.isdisjoint(ids[-3:]) for ids in encoded.completion_ids):
        encoded.notes.add("no_end_token")
