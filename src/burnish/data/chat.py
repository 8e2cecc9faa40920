"""Chat templates: conversations → text, many at once, with a reason for each conversation that a template refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from burnish.data.examples import Message
from burnish.data.rows import RowError
from burnish.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Arguments of the renderer itself, which a row's chat_template_kwargs must not set.
RESERVED_KWARGS = frozenset(
    {
        "conversation",
        "chat_template",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
        "tokenizer_kwargs",
    }
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with what a template may ask for besides."""

    messages: list[Message]
    add_generation_prompt: bool = False
    """Whether the text ends with the opening of an assistant turn."""
    tools: list[Any] | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)

    def options(self) -> str:
        """Everything but the messages, as text: conversations with equal options are rendered together."""
        if not self.tools and not self.template_kwargs:
            return str(self.add_generation_prompt)
        return json.dumps([self.add_generation_prompt, self.tools, self.template_kwargs], sort_keys=True, default=str)


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise DataError where the tokenizer has no chat template, with the cure."""
    if not tokenizer.chat_template:
        raise DataError(
            f"the rows are conversations, and the tokenizer of {tokenizer.name_or_path or 'the model'} has no chat "
            "template.\nGive one: --chat_template_path template.jinja (or a folder of a chat model's tokenizer)"
        )


def render(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> list[str | RowError]:
    """Render each conversation once; those that the template refuses give the reason instead of a text.

    Raises:
        DataError: the tokenizer has no chat template.
    """
    if conversations:
        check_chat_template(tokenizer)
    alike: dict[str, list[int]] = {}
    for number, conversation in enumerate(conversations):
        alike.setdefault(conversation.options(), []).append(number)
    texts: list[str | RowError] = [""] * len(conversations)
    for numbers in alike.values():
        rendered = _render_alike(tokenizer, [conversations[number] for number in numbers])
        for number, text in zip(numbers, rendered, strict=True):
            texts[number] = text
    return texts


_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def generated_spans(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> tuple[str, list[tuple[int, int]]] | None:
    """Render a conversation and say which characters stand between `{% generation %}` and `{% endgeneration %}`.

    Returns:
        The text and its spans, from … up to (not including); None where the template has no such markers.
    """
    template = tokenizer.get_chat_template(tools=conversation.tools or None)  # pyright: ignore[reportArgumentType]
    if not _GENERATION.search(template):
        return None
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered: Any = render_jinja_template(
        [conversation.messages],  # pyright: ignore[reportArgumentType]
        tools=conversation.tools or None,
        chat_template=template,
        return_assistant_tokens_mask=True,
        add_generation_prompt=conversation.add_generation_prompt,
        **{**tokenizer.special_tokens_map, **conversation.template_kwargs},
    )
    (text,), (spans,) = rendered
    return text, [(start, end) for start, end in spans if end > start]


def _render_alike(tokenizer: PreTrainedTokenizerBase, alike: list[Conversation]) -> list[str | RowError]:
    reserved = RESERVED_KWARGS.intersection(alike[0].template_kwargs)
    if reserved:
        return [RowError(f"chat_template_kwargs must not set {', '.join(sorted(reserved))}")] * len(alike)
    try:
        return list(_apply(tokenizer, alike))
    except Exception as error:  # templates are programs: they raise whatever they like
        if len(alike) == 1:
            cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return [RowError(f"the chat template refuses it: {cause}")]
        return [text for conversation in alike for text in _render_alike(tokenizer, [conversation])]


def _apply(tokenizer: PreTrainedTokenizerBase, alike: list[Conversation]) -> list[str]:
    first = alike[0]
    if not first.tools and not first.template_kwargs and all(map(_is_plain, alike)):
        direct = _compiled(tokenizer)
        if direct is not None:
            return _render_plain(direct, tokenizer, alike)
    rendered: Any = tokenizer.apply_chat_template(
        [conversation.messages for conversation in alike],
        tools=first.tools or None,
        add_generation_prompt=first.add_generation_prompt,
        tokenize=False,
        **first.template_kwargs,
    )
    return rendered


def _is_plain(conversation: Conversation) -> bool:
    """Whether messages hold a role and a text and nothing else, so that transformers would change nothing of them."""
    return all(
        len(message) == 2 and type(message.get("role")) is str and type(message.get("content")) is str
        for message in conversation.messages
    )


def _compiled(tokenizer: PreTrainedTokenizerBase) -> Any | None:
    """Return the compiled chat template, or None where this version of transformers has no such function.

    transformers copies, checks and converts each conversation before it renders it, which takes longer than rendering.
    """
    from transformers.utils import chat_template_utils

    compile_template = getattr(chat_template_utils, "_compile_jinja_template", None)
    return None if compile_template is None else compile_template(tokenizer.get_chat_template())


def _render_plain(template: Any, tokenizer: PreTrainedTokenizerBase, alike: list[Conversation]) -> list[str]:
    """Render one conversation after the other in one context: making one takes as long as rendering a short talk.

    What a template sets stays in `vars` and `exported_vars`, which are emptied; the sandbox lets it change no more.
    """
    context = template.new_context(
        {
            **tokenizer.special_tokens_map,
            "tools": None,
            "documents": None,
            "add_generation_prompt": alike[0].add_generation_prompt,
        }
    )
    texts: list[str] = []
    for conversation in alike:
        context.vars.clear()
        context.exported_vars.clear()
        context.parent["messages"] = conversation.messages
        texts.append(template.environment.concat(template.root_render_func(context)))
    return texts
