"""Examples that fit: what is cut to max_length, and what holds nothing to learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from burnish.data.examples import Example
from burnish.data.rows import DroppedRow
from burnish.data.settings import DataSettings
from burnish.data.tokenise import Encoded

# Space, and characters that show nothing: U+0000, zero-width ones, the byte order mark.
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\x00\u200b\u200c\u200d\u2060\ufeff"
Mode = Literal["keep_start", "keep_end", "drop"]


def check_contents(example: Example) -> None:
    """Raise DroppedRow for a completion without words, and for a pair of equal ones."""
    if not all(map(len, example.completions)) or not all(words.strip(BLANKS) for words in example.words[1:]):
        raise DroppedRow("empty_completion")
    if len(example.completions) == 2 and example.completions[0] == example.completions[1]:
        raise DroppedRow("identical_pair")


def fit_to(encoded: Encoded, settings: DataSettings) -> Encoded:
    """Return the example cut to max_prompt_length, max_completion_length and max_length, in this order.

    Raises:
        DroppedRow: as `fit`; and with truncation_mode drop, a part is longer than its own limit.
    """
    limited = _limit_parts(encoded, settings)
    return fit(limited, settings.max_length, settings.truncation_mode)


def _limit_parts(encoded: Encoded, settings: DataSettings) -> Encoded:
    """Keep the last tokens of the prompt and the first of each completion, as TRL's settings of these names did."""
    most_prompt, most = settings.max_prompt_length, settings.max_completion_length
    cuts_prompt = most_prompt is not None and len(encoded.prompt_ids) > most_prompt
    cuts_completions = most is not None and any(len(ids) > most for ids in encoded.completion_ids)
    if (cuts_prompt or cuts_completions) and settings.truncation_mode == "drop":
        raise DroppedRow("too_long")
    if cuts_prompt:
        encoded.notes.add("prompt_trimmed")
        encoded = replace(encoded, prompt_ids=encoded.prompt_ids[-(most_prompt or 0) :])
    if cuts_completions:
        encoded.notes.add("completion_cut")
        masks = [None if mask is None else mask[:most] for mask in encoded.masks]
        ids = [ids[:most] for ids in encoded.completion_ids]
        weights = _parts(encoded.weights, slice(most))
        encoded = replace(encoded, completion_ids=ids, masks=masks, weights=weights)
    return encoded


def fit(encoded: Encoded, max_length: int | None, mode: Mode) -> Encoded:
    """Return the example cut to at most `max_length` tokens of prompt plus completion.

    keep_start cuts the ends of completions; keep_end trims the prompt's start to fit the longest completion, by the
    same amount for all; drop cuts nothing. What was cut is added to the notes.

    Raises:
        DroppedRow: no room is left for a completion (or, with keep_end, for the prompt), nothing counted is left, or
            the pair differs only in what was cut.
    """
    if mode == "keep_end" and not encoded.prompt_ids and max_length is not None:
        encoded = _last_tokens(encoded, max_length)
    encoded = _with_prompt(encoded)
    longest = max((len(ids) for ids in encoded.completion_ids), default=0)
    if max_length is not None and len(encoded.prompt_ids) + longest > max_length:
        encoded = _cut(encoded, max_length, mode, longest)
    if not all(_counts(ids, mask) for ids, mask in zip(encoded.completion_ids, encoded.masks, strict=True)):
        raise DroppedRow("nothing_counted")
    if len(encoded.completion_ids) == 2 and encoded.completion_ids[0] == encoded.completion_ids[1]:
        raise DroppedRow("identical_pair")
    return encoded


def _last_tokens(encoded: Encoded, max_length: int) -> Encoded:
    """A text without a prompt, cut at its start."""
    if all(len(ids) <= max_length for ids in encoded.completion_ids):
        return encoded
    masks = [None if mask is None else mask[-max_length:] for mask in encoded.masks]
    return Encoded([], [ids[-max_length:] for ids in encoded.completion_ids], masks, {*encoded.notes, "prompt_trimmed"})


def _with_prompt(encoded: Encoded) -> Encoded:
    """Give a group without a prompt its first token as prompt: nothing precedes it, so nothing can predict it."""
    if encoded.prompt_ids:
        return encoded
    firsts = {ids[0] if ids else -1 for ids in encoded.completion_ids}
    if len(firsts) != 1 or -1 in firsts:
        raise DroppedRow("empty_prompt")
    masks = [None if mask is None else mask[1:] for mask in encoded.masks]
    weights = _parts(encoded.weights, slice(1, None))
    return Encoded(list(firsts), [ids[1:] for ids in encoded.completion_ids], masks, encoded.notes, weights)


def _cut(encoded: Encoded, max_length: int, mode: Mode, longest: int) -> Encoded:
    prompt = encoded.prompt_ids
    if mode == "drop":
        raise DroppedRow("too_long")
    if mode == "keep_end":
        if longest >= max_length:
            raise DroppedRow("overlong_completion")
        encoded.notes.add("prompt_trimmed")
        return replace(encoded, prompt_ids=prompt[len(prompt) + longest - max_length :])
    room = max_length - len(prompt)
    if room <= 0:
        raise DroppedRow("overlong_prompt")
    encoded.notes.add("completion_cut")
    masks = [None if mask is None else mask[:room] for mask in encoded.masks]
    weights = _parts(encoded.weights, slice(room))
    return Encoded(prompt, [ids[:room] for ids in encoded.completion_ids], masks, encoded.notes, weights)


def _parts(arrays: list[np.ndarray] | None, part: slice) -> list[np.ndarray] | None:
    return None if arrays is None else [array[part] for array in arrays]


def _counts(ids: list[int], mask: np.ndarray | None) -> bool:
    return bool(ids) and (mask is None or bool(mask.any()))
