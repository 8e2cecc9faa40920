"""What a chat template does: to a system turn, at the end of a turn, and with markers that are no tokens."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from burnish.data.chat import Conversation, render
from burnish.data.examples import Example, Message, content_text
from burnish.data.rows import RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKER = re.compile(r"<\|[^|<>\s]{1,40}\|>|<[/_]?[a-z_]{1,20}>|\[/?[A-Z_]{3,20}\]|<｜[^｜<>]{1,40}｜>")
_SYSTEM, _USER = "probe of a system turn", "probe of a user turn"


@dataclass(slots=True)
class TemplateCheck:
    """Findings on one chat template."""

    system_turn: str
    """kept, left out, or refused: <reason>."""
    writes_own_system: bool
    """Whether a conversation without a system turn gets one."""
    ends: dict[str, int] = field(default_factory=dict)
    """End-of-turn token ("none" where there is none) → completions that end with it."""
    end_of_text: str | None = None
    """The tokenizer's end-of-text token, at which generation stops."""
    split_markers: list[str] = field(default_factory=list)
    """What looks like a special token in the rendered first row, and is several: the template of another model."""

    def warnings(self) -> list[str]:
        """Say what a run should not meet unnoticed."""
        lines = []
        if self.split_markers:
            lines.append(
                f"the template writes {', '.join(self.split_markers)}, which the tokenizer does not know as a token; "
                "it may be another model's template"
            )
        common = max(self.ends, key=lambda token: self.ends[token], default="none")
        if common == "none" and self.ends:
            lines.append("completions have no end-of-turn token: a model trained on them does not learn to stop")
        elif self.ends and common != self.end_of_text:
            lines.append(
                f"turns end with {common}, and the tokenizer's end of text is {self.end_of_text}; "
                f"generate with {common} as a stop token"
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": self.warnings()}


def check_template(
    tokenizer: PreTrainedTokenizerBase, ends: Counter[int], first: Example | None
) -> TemplateCheck | None:
    """Probe the tokenizer's chat template; None where no row was a conversation or there is no template.

    Args:
        tokenizer: the tokenizer.
        ends: ids of the last special token of completions, as Measure counts them.
        first: an example whose rendering is looked at.
    """
    if not tokenizer.chat_template or not ends or first is None:
        return None
    names = {-1: "none"}
    return TemplateCheck(
        system_turn=_system_turn(tokenizer),
        writes_own_system=_writes_own_system(tokenizer),
        ends={names.get(token) or str(tokenizer.convert_ids_to_tokens(token)): n for token, n in ends.most_common()},
        end_of_text=cast("str | None", tokenizer.eos_token),
        split_markers=_split_markers(tokenizer, first),
    )


def _render_one(tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str]) -> str | RowError:
    return render(tokenizer, [Conversation([{"role": role, "content": words} for role, words in turns])])[0]


def _system_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    text = _render_one(tokenizer, ("system", _SYSTEM), ("user", _USER))
    if isinstance(text, RowError):
        return f"refused: {text}"
    return "kept" if _SYSTEM in text else "left out"


def _writes_own_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    with_turn, without = (
        _render_one(tokenizer, ("system", _SYSTEM), ("user", _USER)),
        _render_one(tokenizer, ("user", _USER)),
    )
    if isinstance(with_turn, RowError) or isinstance(without, RowError) or _SYSTEM not in with_turn:
        return False
    opening = with_turn.partition(_SYSTEM)[0]
    return len(opening) > 0 and without.startswith(opening) and _USER not in opening and "system" in without


def _split_markers(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    if example.layout != "conversational":
        return []
    prompt, completion = cast("list[Message]", example.prompt), cast("list[Message]", example.completions[0])
    text = render(tokenizer, [Conversation([*prompt, *completion], tools=example.tools)])[0]
    if isinstance(text, RowError):
        return []
    said = content_text(prompt) + content_text(completion)
    found = [marker for marker in dict.fromkeys(_MARKER.findall(text)) if marker not in said]
    vocabulary = tokenizer.get_vocab()
    return [marker for marker in found if marker not in vocabulary][:5]
