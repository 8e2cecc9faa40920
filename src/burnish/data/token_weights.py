"""Weights of single tokens of a pair's completions: given token by token, or as spans of characters.

A weight multiplies its token's log-probability, under policy and reference alike, and counts as that much of a token:
0 leaves the token out, 2 is as if it stood twice. Tokens without a weight have 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from burnish.data.backend import fast_backend
from burnish.data.examples import Example, describe, read_number
from burnish.data.rows import RowError
from burnish.data.texts import RenderedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from burnish.data.tokenise import Encoded

SIDES = ("chosen", "rejected")

COLUMNS = tuple(f"{side}_{kind}" for side in SIDES for kind in ("token_weights", "spans"))

WeightedSpan = tuple[int, int, float]
"""First character, one after the last, and the weight of the tokens that reach into them."""


def read_token_weights(example: Example, row: Mapping[str, Any]) -> None:
    """Read `chosen_token_weights`, `chosen_spans` and those of the rejected completion into a pair's example.

    Raises:
        RowError: weights of no pair, both kinds for one completion, or entries that are no weights or spans.
    """
    given = [name for name in COLUMNS if name in row]
    if not given:
        return
    if example.shape != "preference":
        raise RowError(f"{given[0]} belongs to a pair of chosen and rejected")
    weights, spans = zip(*(_read_side(row, side) for side in SIDES), strict=True)
    example.token_weights = list(weights) if any(part is not None for part in weights) else None
    example.spans = list(spans) if any(part is not None for part in spans) else None


def _read_side(row: Mapping[str, Any], side: str) -> tuple[list[float] | None, list[WeightedSpan] | None]:
    weights, spans = f"{side}_token_weights", f"{side}_spans"
    if weights in row and spans in row:
        raise RowError(f"{weights} and {spans} both weigh the same tokens; keep one")
    if weights in row:
        return [read_number(value, weights, at_least=0) for value in _list(row[weights], weights)], None
    if spans in row:
        return None, [_read_span(value, spans) for value in _list(row[spans], spans)]
    return None, None


def _list(value: Any, column: str) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise RowError(f"{column} is {describe(value)}, not a list")
    return list(value)


def _read_span(value: Any, column: str) -> WeightedSpan:
    parts = _list(value, column)
    if len(parts) != 3 or any(isinstance(part, bool) or not isinstance(part, int | float) for part in parts):
        raise RowError(f"{column} holds {describe(value)}, not [first character, end, weight]")
    start, end, weight = parts
    if int(start) != start or int(end) != end or not 0 <= start < end:
        raise RowError(f"{column} holds a span from {start} to {end}; it counts characters from 0, the end excluded")
    return int(start), int(end), read_number(weight, column, at_least=0)


def weigh_tokens(
    encoded: Encoded, example: Example, text: RenderedText | None, tokenizer: PreTrainedTokenizerBase
) -> Encoded | RowError:
    """Give an encoded example the weights of its example, one a token of each completion.

    Args:
        encoded: not yet truncated; changed in place.
        example: with token_weights, spans, or neither.
        text: what was tokenised; None where the row gave token ids.
        tokenizer: says where each token stands in the text.
    """
    if example.token_weights is None and example.spans is None:
        return encoded
    try:
        encoded.weights = [
            _weights(encoded, example, number, text, tokenizer) for number in range(len(encoded.completion_ids))
        ]
    except RowError as error:
        return error
    return encoded


def _weights(
    encoded: Encoded, example: Example, number: int, text: RenderedText | None, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    size = len(encoded.completion_ids[number])
    given = None if example.token_weights is None else example.token_weights[number]
    spans = None if example.spans is None else example.spans[number]
    if given is not None:
        if len(given) != size:
            raise RowError(f"{SIDES[number]}_token_weights has {len(given)} entries for {size} tokens")
        return np.asarray(given, dtype=np.float32)
    if spans is None:
        return np.ones(size, dtype=np.float32)
    if text is None:
        raise RowError(f"{SIDES[number]}_spans counts characters, and the row gives token ids: use token weights")
    return _span_weights(encoded, example, number, text, tokenizer)


def _span_weights(
    encoded: Encoded, example: Example, number: int, text: RenderedText, tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    column, words = f"{SIDES[number]}_spans", _words(example, number)
    whole, spans = text.whole[number], example.spans[number] if example.spans else None
    start = whole.rfind(words)
    encoding = fast_backend(tokenizer).encode(whole, add_special_tokens=text.special_tokens)
    if start < 0 or encoding.ids != [*encoded.prompt_ids, *encoded.completion_ids[number]]:
        raise RowError(f"{column}: the chat template or the tokenizer changes the text, so that its characters move")
    offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)[len(encoded.prompt_ids) :] - start
    weights = np.ones(len(offsets), dtype=np.float32)
    for first, end, weight in spans or ():
        if end > len(words):
            raise RowError(f"{column} holds a span that ends at {end}, and the completion has {len(words)} characters")
        weights[(offsets[:, 1] > first) & (offsets[:, 0] < end)] = weight
    return weights


def _words(example: Example, number: int) -> str:
    """The characters that spans count: a plain completion, or the content of a conversation's last turn."""
    completion = example.completions[number]
    if isinstance(completion, str):
        return completion
    last = completion[-1]
    content = last["content"] if isinstance(last, dict) else None
    if not isinstance(content, str):
        raise RowError(f"{SIDES[number]}_spans needs a last turn that is one text")
    return content
