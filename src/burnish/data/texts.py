"""Examples → rendered text: the prompt, and the prompt with each completion, as one tokenizer will see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from burnish.data.chat import Conversation, render
from burnish.data.examples import Example, Message
from burnish.data.rows import RowError
from burnish.data.turns import Span, assistant_spans, counted_spans, has_other_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK = "<think>"


@dataclass(slots=True)
class RenderedText:
    """A prompt and its completions as text."""

    prompt: str
    whole: list[str]
    """Prompt plus completion, for each completion."""
    spans: list[list[Span] | None]
    """Counted characters of each whole text; None counts all of the completion."""
    special_tokens: bool
    """Whether the tokenizer adds its special tokens; a chat template has written them already."""
    begins_with_assistant: bool = True
    """Whether the completions begin with a turn of the assistant, which the prompt's text opens."""
    notes: set[str] = field(default_factory=set)
    """Kinds of the report: what the chat template made of the turns."""


def render_plain(example: Example, tokenizer: PreTrainedTokenizerBase) -> RenderedText:
    """Append end-of-text to plain completions that do not end with it."""
    end = cast("str", tokenizer.eos_token or "")
    prompt = cast("str", example.prompt)
    completions = cast("list[str]", example.completions)
    whole = [prompt + (text if text.endswith(end) else text + end) for text in completions]
    return RenderedText(prompt, whole, [None] * len(whole), special_tokens=True)


def render_conversations(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> list[RenderedText | RowError]:
    """Render conversational examples in one go; those that the template refuses give the reason.

    Raises:
        DataError: the tokenizer has no chat template.
    """
    parts = [_conversations(example) for example in examples]
    texts = iter(render(tokenizer, [conversation for part in parts for conversation in part]))
    return [
        _gather(example, part, [next(texts) for _ in part], tokenizer)
        for example, part in zip(examples, parts, strict=True)
    ]


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
) -> RenderedText | RowError:
    for text in texts:
        if isinstance(text, RowError):
            return text
    rendered = cast("list[str]", texts)
    count, prompt_turns = len(example.completions), len(example.prompt)
    spans: list[list[Span] | None] = []
    for conversation, text in zip(conversations[:count], rendered[:count], strict=True):
        found = None
        if example.counted == "all":
            spans.append(None)
            continue
        if example.counted == "assistant":
            found = assistant_spans(tokenizer, conversation, prompt_turns, text)
        elif has_other_turns(conversation, prompt_turns):
            found = counted_spans(tokenizer, conversation, prompt_turns, text)
        if isinstance(found, RowError):
            return found
        spans.append(found)
    opening = all(cast("Message", completion[0])["role"] == "assistant" for completion in example.completions)
    prompt = rendered[count] if prompt_turns else ""
    return RenderedText(
        prompt,
        rendered[:count],
        spans,
        special_tokens=False,
        begins_with_assistant=opening,
        notes=_changes(example, rendered[:count]),
    )


def _changes(example: Example, rendered: list[str]) -> set[str]:
    """Say what a template did to the turns besides writing them down: words left out or changed, <think> added."""
    notes: set[str] = set()
    prompt = list(_words(cast("list[Message]", example.prompt)))
    for number, (completion, text) in enumerate(zip(example.completions, rendered, strict=True)):
        words = list(_words(cast("list[Message]", completion)))
        if any(word not in text for word in (words if number else [*prompt, *words])):
            notes.add("turn_changed")
        if THINK in text and not any(THINK in word for word in (*prompt, *words)) and not _reasons(example):
            notes.add("thinking_added")
    return notes


def _words(turns: list[Message]) -> Iterator[str]:
    """Give what people and the assistant say, without the space around it; tools' outputs are often written as JSON."""
    for turn in turns:
        content = turn.get("content") if turn["role"] != "tool" else ""
        for part in content if isinstance(content, list) else [{"text": content or ""}]:
            yield part["text"].strip()


def _reasons(example: Example) -> bool:
    """Whether a turn keeps its reasoning in a column of its own, which templates put between <think> tags."""
    turns = [*example.prompt, *(turn for completion in example.completions for turn in completion)]
    return any(isinstance(turn, dict) and turn.get("reasoning_content") for turn in turns)
