"""What each method wants: examples of any shape → the groups' examples of one kind.

To add a kind, write one function and name it in CONVERSIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

from burnish.data.examples import Example, Message, Shape
from burnish.data.rows import DroppedRow, RowError, UnknownForm
from burnish.data.settings import CountingSettings, DataSettings

GroupKind = Literal["preference", "unpaired", "sft", "ranking"]

SHAPE_IN_WORDS = {
    "preference": "a preference pair",
    "unpaired": "an unpaired preference",
    "prompt_completion": "a prompt with a completion",
    "messages": "a conversation",
    "text": "a text",
    "ranked": "a ranked list",
    "prompt": "a prompt alone",
}

KIND_OF: dict[Shape, GroupKind] = {
    "preference": "preference",
    "unpaired": "unpaired",
    "prompt_completion": "sft",
    "messages": "sft",
    "text": "sft",
    "ranked": "ranking",
}
"""What a row of a shape is prepared for, when nobody says."""


class WrongShape(UnknownForm):
    """A row that is well-formed, and not what the method learns from."""


def to_preference(example: Example) -> list[Example]:
    """Return a pair, chosen first (k = 2), or a ranked list (k > 2, 0 is best)."""
    if example.shape == "ranked":
        ranking: tuple[int, ...] = example.ranking or tuple(range(len(example.completions)))
        if len(set(ranking)) == 1:
            raise DroppedRow("tie")
        if len(ranking) > 2:
            return [replace(example, ranking=ranking)]
        ordered = example.completions if list(ranking) == sorted(ranking) else example.completions[::-1]
        return [replace(example, shape="preference", completions=ordered, ranking=None)]
    if example.shape != "preference":
        raise WrongShape(_wrong(example, "a preference pair (chosen and rejected) or a ranked list"))
    return [example]


def to_unpaired(example: Example) -> list[Example]:
    """Return single completions with a label (k = 1); a pair gives two."""
    if example.shape == "preference":
        return [_half(example, number, label=label) for number, label in enumerate((True, False))]
    if example.shape != "unpaired":
        raise WrongShape(_wrong(example, "a completion with a label"))
    return [example]


def _half(example: Example, number: int, *, label: bool) -> Example:
    """One completion of a pair, with what the row says of it."""
    parts: dict[str, Any] = {"completions": example.completions[number : number + 1], "label": label}
    for name in ("ref_logps", "token_weights", "spans"):
        values = getattr(example, name)
        parts[name] = None if values is None else values[number : number + 1]
    return replace(example, shape="unpaired", **parts)


def to_sft(example: Example) -> list[Example]:
    """Return a prompt with one completion (k = 1), of which the assistant's turns count.

    A conversation is split before its first assistant turn; a text has no prompt and counts as it stands.
    """
    if example.shape == "messages":
        turns = cast("list[Message]", example.completions[0])
        first = next((n for n, turn in enumerate(turns) if turn["role"] == "assistant"), None)
        if first is None:
            raise DroppedRow("nothing_counted")
        return [replace(example, prompt=turns[:first], completions=[turns[first:]])]
    if example.shape not in {"prompt_completion", "text"}:
        raise WrongShape(_wrong(example, "a conversation, a text, or a prompt with a completion"))
    return [example]


def to_ranking(example: Example) -> list[Example]:
    """Return a list of completions with their ranks (k ≥ 2, 0 is best)."""
    if example.shape == "preference":
        return [replace(example, shape="ranked", ranking=(0, 1))]
    if example.shape != "ranked":
        raise WrongShape(
            _wrong(example, "a preference pair (chosen and rejected) or a ranked list (completions, ranking)")
        )
    return [replace(example, ranking=example.ranking or tuple(range(len(example.completions))))]


def count_as(example: Example, settings: CountingSettings) -> Example:
    """Choose which tokens of a supervised row count; a conversation or a text counts as a whole unless told otherwise.

    Args:
        example: from to_sft.
        settings: completion_only_loss and assistant_only_loss are used.

    Raises:
        RowError: the settings ask for a border that the row does not have.
    """
    if settings.assistant_only_loss:
        if example.layout != "conversational":
            raise RowError(f"assistant_only_loss needs turns, and {_offer(example)}; leave it out")
        if settings.completion_only_loss is False:
            example = to_sft(_as_conversation(example))[0]
        return replace(example, counted="assistant")
    has_prompt = example.shape == "prompt_completion"
    if settings.completion_only_loss and not has_prompt:
        cure = "use assistant_only_loss" if example.shape == "messages" else "leave it out"
        raise RowError(f"completion_only_loss needs a prompt and a completion, and {_offer(example)}; {cure}")
    counts_all = not has_prompt if settings.completion_only_loss is None else not settings.completion_only_loss
    return replace(example, counted="all") if counts_all else example


def _as_conversation(example: Example) -> Example:
    """Prompt and completion as one conversation."""
    turns = cast("list[Message]", [*example.prompt, *example.completions[0]])
    return replace(example, shape="messages", prompt=[], completions=[turns])


def convert(example: Example, kind: GroupKind, settings: DataSettings) -> list[Example]:
    """The groups' examples of one row, as the method's settings want them; raises as the conversions do."""
    wanted = CONVERSIONS[kind](example)
    counting = settings if isinstance(settings, CountingSettings) else None
    return [count_as(one, counting) for one in wanted] if kind == "sft" and counting is not None else wanted


CONVERSIONS: dict[GroupKind, Callable[[Example], list[Example]]] = {
    "preference": to_preference,
    "unpaired": to_unpaired,
    "sft": to_sft,
    "ranking": to_ranking,
}


def _wrong(example: Example, wanted: str) -> str:
    return f"{_offer(example)}, not {wanted}"


def _offer(example: Example) -> str:
    return f"the row is {SHAPE_IN_WORDS[example.shape]}"
