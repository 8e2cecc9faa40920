"""Which characters of a rendered conversation the policy itself says.

A completion may hold several turns: the assistant's, other people's, outputs of tools. Only the assistant's count,
from the end of the turn's opening (which the generation prompt writes) to where the next turn begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from burnish.data.chat import Conversation, generated_spans, render
from burnish.data.rows import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Characters from … up to (not including)."""


def has_other_turns(conversation: Conversation, num_prompt_turns: int) -> bool:
    """Whether the completion holds more than one assistant turn, so that its counted part must be found."""
    roles = [turn["role"] for turn in conversation.messages[num_prompt_turns:]]
    return roles != ["assistant"]


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase, whole: Conversation, num_prompt_turns: int, text: str
) -> list[Span] | RowError:
    """Find what the assistant says in a completion: by the template's generation markers, else as counted_spans does.

    Arguments are those of counted_spans.
    """
    marked = generated_spans(tokenizer, whole)
    if marked is None:
        return counted_spans(tokenizer, whole, num_prompt_turns, text)
    rendered, spans = marked
    if rendered != text:
        return RowError("the chat template writes the conversation otherwise when its generation markers are read")
    return spans or RowError("the chat template's generation markers enclose nothing of this conversation")


def counted_spans(
    tokenizer: PreTrainedTokenizerBase, whole: Conversation, num_prompt_turns: int, text: str
) -> list[Span] | RowError:
    """Find the assistant turns of a completion in the rendered text, in characters.

    Each turn's borders are the lengths of two shorter renderings: of what precedes it, with the generation prompt, and
    of what precedes it with itself. Templates that render a turn differently once others follow (reasoning that is
    left out of earlier turns) are searched for the turn's words instead.

    Args:
        tokenizer: the tokenizer with the chat template.
        whole: prompt and completion.
        num_prompt_turns: how many of its messages are the prompt.
        text: the rendering of `whole`.
    """
    spoken = [n for n in range(num_prompt_turns, len(whole.messages)) if whole.messages[n]["role"] == "assistant"]
    if not spoken:
        return RowError("the completion has no assistant turn")
    beginnings = render(tokenizer, [_part(whole, n, opening=True) for n in spoken if n])
    if spoken[0] == 0:
        beginnings = ["", *beginnings]
    ends = render(tokenizer, [_part(whole, n + 1, opening=False) for n in spoken])
    spans: list[Span] = []
    for beginning, end in zip(beginnings, ends, strict=True):
        if isinstance(beginning, RowError) or isinstance(end, RowError):
            return _find_words(whole, num_prompt_turns, text)
        if not (text.startswith(beginning) and text.startswith(end) and len(beginning) <= len(end)):
            return _find_words(whole, num_prompt_turns, text)
        spans.append((len(beginning), len(end)))
    return spans


def _part(whole: Conversation, num_turns: int, *, opening: bool) -> Conversation:
    return replace(whole, messages=whole.messages[:num_turns], add_generation_prompt=opening)


def _find_words(whole: Conversation, num_prompt_turns: int, text: str) -> list[Span] | RowError:
    """Find each turn's words one after the other; an assistant turn reaches to the end of the line it ends in."""
    borders: list[tuple[bool, int, int]] = []
    at = 0
    for number, turn in enumerate(whole.messages):
        words = _words(turn.get("content"))
        if words not in text[at:]:
            words = words.rsplit("</think>", 1)[-1].strip()  # reasoning is what templates leave out of earlier turns
        start = text.find(words, at) if words else -1
        if start < 0:
            if number < num_prompt_turns and turn["role"] != "user":
                continue  # templates may fold or leave out what stands before the first question
            return RowError("the chat template changes the turns, so that the assistant's can't be told from others'")
        at = start + len(words)
        borders.append((number >= num_prompt_turns and turn["role"] == "assistant", start, at))
    return [
        (start, _end_of_turn(text, end, borders[n + 1][1] if n + 1 < len(borders) else len(text)))
        for n, (counts, start, end) in enumerate(borders)
        if counts
    ]


def _words(content: object) -> str:
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(part["text"] for part in content)
    return content.strip() if isinstance(content, str) else ""


def _end_of_turn(text: str, end: int, next_words: int) -> int:
    """Return where the turn that ends at `end` is over: after its end-of-turn marker, before the next turn's words."""
    if next_words == len(text):
        return next_words
    line = text.find("\n", end, next_words)
    return next_words if line < 0 else line + 1
