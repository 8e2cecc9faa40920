"""One row → Example: the first form that knows the row's columns reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from burnish.data.examples import Example, describe, read_number
from burnish.data.formats import alpaca, judged, sharegpt, transcripts, trl
from burnish.data.rows import Row, RowError, UnknownForm
from burnish.data.token_weights import read_token_weights

Reader = Callable[[Mapping[str, Any]], Example | None]

# Order matters where columns overlap: the more particular form comes first.
READERS: tuple[Reader, ...] = (
    trl.read_token_ids,
    sharegpt.read_sharegpt,
    transcripts.read_transcripts,
    judged.read_llmbar,
    judged.read_pandalm,
    judged.read_persona,
    alpaca.read_alpaca,
    trl.read_ranked,
    trl.read_preference,
    trl.read_messages_row,
    trl.read_completion,
    trl.read_text_row,
    trl.read_prompt,
)

FORMS_IN_WORDS = (
    "preference (chosen, rejected, and prompt or none), unpaired (prompt, completion, label), prompt and completion, "
    "messages, text, token ids (prompt_ids, chosen_ids, rejected_ids), ShareGPT (conversations), "
    "Alpaca (instruction, input, output), ranked lists (prompt, completions, ranking)"
)


def recognise(row: Row) -> Example:
    """Read one row.

    Raises:
        UnknownForm: its columns are none of the known forms.
        RowError: a known form with something wrong in it.
        DroppedRow: a known form with nothing to learn from.
    """
    # Tables that hold several forms fill the other forms' columns with nulls.
    present = {key: value for key, value in row.items() if value is not None}
    if present.get("images") or present.get("image") or present.get("videos") or present.get("audios"):
        raise RowError("images, videos and sounds are not supported; leave their columns out to train on the text")
    for reader in READERS:
        example = reader(present)
        if example is not None:
            return _with_extras(example, present)
    nulls = [key for key, value in row.items() if value is None]
    if nulls:
        named = ", ".join(map(str, nulls[:4]))
        raise UnknownForm(f"{named} is null" if len(nulls) == 1 else f"{named} are null")
    raise UnknownForm("its columns are no known form")


def _with_extras(example: Example, row: Mapping[str, Any]) -> Example:
    if "weight" in row:
        example.weight = read_number(row["weight"], "weight", at_least=0)
    if "margin" in row:
        example.margin = read_number(row["margin"], "margin")
    if "label_smoothing" in row:
        example.label_smoothing = read_number(row["label_smoothing"], "label_smoothing", at_least=0)
        if example.label_smoothing >= 0.5:
            raise RowError(f"label_smoothing is {example.label_smoothing:g}; from 0.5 on the flipped labels win")
    if "ref_chosen_logps" in row or "ref_rejected_logps" in row:
        example.ref_logps = _reference_logps(example, row)
    read_token_weights(example, row)
    if "tools" in row and example.tools is None:
        example.tools = read_tools(row["tools"])
    if "chat_template_kwargs" in row:
        kwargs = row["chat_template_kwargs"]
        if not isinstance(kwargs, Mapping):
            raise RowError(f"chat_template_kwargs is {describe(kwargs)}, not an object")
        example.template_kwargs = {str(key): value for key, value in kwargs.items() if value is not None}
    return example


def _reference_logps(example: Example, row: Mapping[str, Any]) -> tuple[float, ...]:
    names = ("ref_chosen_logps", "ref_rejected_logps")
    missing = [name for name in names if name not in row]
    if missing:
        raise RowError(f"{missing[0]} is missing or null beside the other's")
    if example.shape != "preference":
        raise RowError(f"{names[0]} belongs to a pair of chosen and rejected")
    return tuple(read_number(row[name], name) for name in names)


def read_tools(value: Any) -> list[Any] | None:
    """Return tool descriptions, which may stand in the row as JSON text; none give None."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise RowError(f"tools is {describe(value)}, not JSON") from None
    if value is not None and not isinstance(value, list):
        raise RowError(f"tools is {describe(value)}, not a list")
    return value or None
