"""One row as the model will see it: what is prompt, what counts, what does not, and what truncation takes away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from burnish.data.examples import Example
from burnish.data.formats import recognise
from burnish.data.kinds import KIND_OF, SHAPE_IN_WORDS, convert
from burnish.data.report import KINDS
from burnish.data.rows import BadRow, DroppedRow, Place, ReadRow, RowError, RowSource
from burnish.data.settings import DataSettings
from burnish.data.tokenise import Encoded, ExampleEncoder
from burnish.data.truncate import check_contents, fit_to
from burnish.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

State = Literal["prompt", "counted", "not counted", "cut"]

_CUTS = {
    "completion_cut": "completions cut at max_length or max_completion_length",
    "prompt_trimmed": "prompt's start cut to fit max_length or max_prompt_length",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that follow each other and share a fate."""

    state: State
    ids: list[int]
    text: str
    """Their decoded text, special tokens included."""


@dataclass(frozen=True, slots=True)
class ExplainedText:
    """The prompt, or one completion."""

    name: str
    """prompt, chosen, rejected, completion, completion 1, …"""
    segments: list[Segment]

    def count(self, *states: State) -> int:
        """Return how many tokens have one of these fates."""
        return sum(len(segment.ids) for segment in self.segments if segment.state in states)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row, what it was recognised as, and what becomes of it."""

    place: Place
    form: str
    """The form in words; empty where none was recognised."""
    fate: str
    """Used, or why not."""
    notes: list[str] = field(default_factory=list)
    """What was noted or cut, in the report's words."""
    texts: list[ExplainedText] = field(default_factory=list)


def explain_row(
    rows: RowSource, row: int, tokenizer: PreTrainedTokenizerBase, settings: DataSettings
) -> list[Explanation]:
    """Explain one row; a row that is prepared as several groups gives several explanations.

    Args:
        rows: the source.
        row: the row's number (from 1); in JSON Lines files, the line number.
        tokenizer: fast; with a chat template if the row is a conversation.
        settings: max_length and truncation_mode are used.

    Raises:
        DataError: there is no such row, or a conversation meets a tokenizer without a chat template.
    """
    read, place = _find(rows, row)
    if isinstance(read, BadRow):
        return [Explanation(place, "", f"unusable: {read.reason}")]
    try:
        example = recognise(read)
    except RowError as error:
        return [Explanation(place, "", f"unusable: {error}")]
    except DroppedRow as drop:
        return [Explanation(place, "", f"dropped: {KINDS[drop.kind][1]}")]
    if example.shape not in KIND_OF:
        return [Explanation(place, example.form, f"unusable: {SHAPE_IN_WORDS[example.shape]}")]
    try:
        wanted = convert(example, KIND_OF[example.shape], settings)
    except DroppedRow as drop:
        return [Explanation(place, example.form, f"dropped: {KINDS[drop.kind][1]}")]
    encoded = ExampleEncoder(tokenizer).encode(wanted)
    return [_explain(one, result, place, tokenizer, settings) for one, result in zip(wanted, encoded, strict=True)]


def _find(rows: RowSource, row: int) -> ReadRow:
    last = None
    for read in rows:
        last = read[1]
        if last.row == row:
            return read
        if last.row > row and last.line is not None:
            break
    seen = (
        f"its last is {last.row}"
        if last is not None and last.row < row
        else "the line is blank"
        if last
        else "it is empty"
    )
    raise DataError(f"{rows.name} has no row {row}: {seen}")


def _explain(
    example: Example,
    encoded: Encoded | RowError,
    place: Place,
    tokenizer: PreTrainedTokenizerBase,
    settings: DataSettings,
) -> Explanation:
    if isinstance(encoded, RowError):
        return Explanation(place, example.form, f"unusable: {encoded}")
    whole = Encoded(encoded.prompt_ids, encoded.completion_ids, encoded.masks, set(encoded.notes))
    fate = "used"
    try:
        check_contents(example)
        fitting = fit_to(encoded, settings)
    except DroppedRow as drop:
        fate, fitting = f"dropped: {KINDS[drop.kind][1]}", whole
    notes = [_CUTS.get(note, f"noted: {KINDS[note][1]}") for note in sorted(fitting.notes)]
    return Explanation(place, example.form, fate, notes, list(_texts(example, whole, fitting, tokenizer)))


def _texts(example: Example, whole: Encoded, fitting: Encoded, tokenizer: Any) -> Iterator[ExplainedText]:
    """Lay what is kept over what there was. A group without a prompt has lent its first token to it."""
    lent = len(fitting.prompt_ids) if not whole.prompt_ids else 0
    trimmed = max(len(whole.prompt_ids) - len(fitting.prompt_ids), 0)
    states = np.full(len(whole.prompt_ids), "prompt", dtype=object)
    states[:trimmed] = "cut"
    yield ExplainedText("prompt", list(_segments(whole.prompt_ids, states, tokenizer)))
    for number, (ids, mask) in enumerate(zip(whole.completion_ids, whole.masks, strict=True)):
        kept = len(fitting.completion_ids[number]) + lent
        states = np.full(len(ids), "counted", dtype=object)
        if mask is not None:
            states[~mask] = "not counted"
        states[:lent] = "prompt"
        states[kept:] = "cut"
        yield ExplainedText(_name(example, number), list(_segments(ids, states, tokenizer)))


def _name(example: Example, number: int) -> str:
    if example.shape == "preference":
        return ("chosen", "rejected")[number]
    if example.label is not None:
        return "desirable completion" if example.label else "undesirable completion"
    return "completion" if len(example.completions) == 1 else f"completion {number + 1}"


def _segments(ids: list[int], states: np.ndarray, tokenizer: Any) -> Iterator[Segment]:
    at = 0
    for state, run in groupby(states):
        length = len(list(run))
        part = list(ids[at : at + length])
        yield Segment(state, part, tokenizer.decode(part, skip_special_tokens=False))
        at += length
