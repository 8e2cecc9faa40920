"""TRL's forms: preference, unpaired, prompt-completion, messages, text, token ids; and ranked lists.

Where the prompt is implicit, it is what both completions begin with, found as TRL finds it: whole messages of a
conversation, characters of plain text (a space before the difference goes to the completions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.data.examples import (
    Content,
    Example,
    Message,
    describe,
    is_conversation,
    read_ids,
    read_label,
    read_messages,
    read_number,
    read_text,
)
from burnish.data.rows import RowError

Columns = Mapping[str, Any]


def read_token_ids(row: Columns) -> Example | None:
    """Read prompt_ids with chosen_ids and rejected_ids, or with completion_ids."""
    if "prompt_ids" not in row:
        return None
    prompt = read_ids(row["prompt_ids"], "prompt_ids")
    if "chosen_ids" in row or "rejected_ids" in row:
        _need(row, "chosen_ids", "rejected_ids")
        pair: list[Content] = [read_ids(row[name], name) for name in ("chosen_ids", "rejected_ids")]
        return Example("preference", "token ids", prompt, pair)
    if "completion_ids" in row:
        completion: list[Content] = [read_ids(row["completion_ids"], "completion_ids")]
        if "label" in row:
            return Example("unpaired", "token ids", prompt, completion, label=read_label(row["label"], "label"))
        return Example("prompt_completion", "token ids", prompt, completion)
    raise RowError("prompt_ids stands without chosen_ids and rejected_ids")


def read_preference(row: Columns) -> Example | None:
    """Read chosen and rejected, with the prompt in its own column or inside both."""
    if "chosen" not in row and "rejected" not in row:
        return None
    _need(row, "chosen", "rejected")
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _plain_pair(row)
    prompt = row.get("prompt")
    chosen_turns, rejected_turns = _turns(chosen, "chosen"), _turns(rejected, "rejected")
    # Some data sets repeat the prompt inside both conversations and keep its text in a column besides.
    if is_conversation(prompt) or (isinstance(prompt, str) and chosen_turns[0]["role"] == "assistant"):
        return Example(
            "preference", "preference", _turns(prompt, "prompt", role="user"), [chosen_turns, rejected_turns]
        )
    if prompt is not None and not isinstance(prompt, str):
        raise RowError(f"prompt is {describe(prompt)}, not text or a list of messages")
    return implicit_pair("preference, implicit prompt", chosen_turns, rejected_turns)


def implicit_pair(form: str, chosen: list[Message], rejected: list[Message]) -> Example:
    """Split two conversations into their common beginning and what follows; at least one turn stays a completion."""
    shorter = min(len(chosen), len(rejected))
    common = next((n for n in range(shorter) if chosen[n] != rejected[n]), shorter - 1)
    if common == 0:
        raise RowError("chosen and rejected have no prompt in common, and there is no column prompt")
    return Example("preference", form, chosen[:common], [chosen[common:], rejected[common:]])


def _plain_pair(row: Columns) -> Example:
    chosen, rejected = read_text(row["chosen"], "chosen"), read_text(row["rejected"], "rejected")
    prompt = row.get("prompt")
    if is_conversation(prompt):
        turns: list[Content] = [_turns(text, "completion") for text in (chosen, rejected)]
        return Example("preference", "preference", read_messages(prompt, "prompt"), turns)
    if prompt is not None:
        return Example("preference", "plain preference", read_text(prompt, "prompt"), [chosen, rejected])
    common = _common_characters(chosen, rejected)
    return Example(
        "preference", "plain preference, implicit prompt", chosen[:common], [chosen[common:], rejected[common:]]
    )


def _common_characters(chosen: str, rejected: str) -> int:
    shorter = min(len(chosen), len(rejected))
    if shorter == 0:
        raise RowError(f"{'chosen' if not chosen else 'rejected'} is empty, and there is no column prompt")
    common = next((n for n in range(shorter) if chosen[n] != rejected[n]), None)
    if common is None:
        return shorter - 1
    return common - 1 if common and chosen[common - 1] == " " else common


def read_ranked(row: Columns) -> Example | None:
    """Read prompt and completions, with a ranking (0 is best), scores (greatest is best) or the order as ranking."""
    if "completions" not in row or "prompt" not in row:
        return None
    completions = row["completions"]
    if not isinstance(completions, list | tuple) or len(completions) < 2:
        raise RowError(f"completions is {describe(completions)}, not a list of two or more")
    conversational = is_conversation(row["prompt"]) or not isinstance(completions[0], str)
    contents: list[Content]
    if conversational:
        prompt: Content = _turns(row["prompt"], "prompt", role="user")
        contents = [_turns(entry, f"completions[{n}]") for n, entry in enumerate(completions)]
    else:
        prompt = read_text(row["prompt"], "prompt")
        contents = [read_text(entry, f"completions[{n}]") for n, entry in enumerate(completions)]
    return Example("ranked", "ranked list", prompt, contents, ranking=_read_ranking(row, len(contents)))


def _read_ranking(row: Columns, count: int) -> tuple[int, ...] | None:
    if "ranking" in row and "scores" in row:
        raise RowError("ranking and scores both order the completions; keep one")
    if "scores" in row:
        return _ranking_by_scores(row["scores"], count)
    if "ranking" not in row:
        return None
    ranking = read_ids(row["ranking"], "ranking")
    if len(ranking) != count:
        raise RowError(f"ranking has {len(ranking)} entries for {count} completions")
    return tuple(ranking)


def _ranking_by_scores(scores: Any, count: int) -> tuple[int, ...]:
    """The greatest score has rank 0; equal scores share a rank."""
    if hasattr(scores, "tolist"):
        scores = scores.tolist()
    if not isinstance(scores, list | tuple) or len(scores) != count:
        size = f"has {len(scores)} entries" if isinstance(scores, list | tuple) else f"is {describe(scores)}"
        raise RowError(f"scores {size} for {count} completions")
    numbers = [read_number(score, "scores") for score in scores]
    order = sorted(set(numbers), reverse=True)
    return tuple(order.index(number) for number in numbers)


def read_completion(row: Columns) -> Example | None:
    """Read prompt and completion, with a label (unpaired) or without."""
    if "completion" not in row:
        return None
    _need(row, "prompt", "completion")
    prompt, completion = row["prompt"], row["completion"]
    content: Content
    if isinstance(prompt, str) and isinstance(completion, str):
        prompt, content, style = read_text(prompt, "prompt"), read_text(completion, "completion"), "plain "
    else:
        prompt, content, style = _turns(prompt, "prompt", role="user"), _turns(completion, "completion"), ""
    if "label" in row:
        return Example("unpaired", f"{style}unpaired", prompt, [content], label=read_label(row["label"], "label"))
    return Example("prompt_completion", f"{style}prompt and completion", prompt, [content])


def read_messages_row(row: Columns) -> Example | None:
    """Read a whole conversation; with a label its last turn is an unpaired completion."""
    if "messages" not in row:
        return None
    messages = read_messages(row["messages"], "messages")
    return conversation_example("messages", messages, row.get("label"))


def conversation_example(form: str, messages: list[Message], label: Any) -> Example:
    """Make an Example of a conversation: unpaired with a label, else the whole."""
    if label is None:
        return Example("messages", form, [], [messages])
    if len(messages) < 2:
        raise RowError("a labelled conversation needs a prompt and a completion")
    desirable = read_label(label, "label")
    return Example("unpaired", f"{form}, unpaired", messages[:-1], [messages[-1:]], label=desirable)


def read_text_row(row: Columns) -> Example | None:
    """Read plain text to be learnt as it stands."""
    if "text" not in row:
        return None
    return Example("text", "text", "", [read_text(row["text"], "text")])


def read_prompt(row: Columns) -> Example | None:
    """Read a prompt alone."""
    if "prompt" not in row or (len(row) > 1 and not is_conversation(row["prompt"])):
        return None
    prompt = row["prompt"]
    return Example(
        "prompt", "prompt", read_messages(prompt, "prompt") if is_conversation(prompt) else read_text(prompt, "prompt")
    )


def _turns(value: Any, column: str, *, role: str = "assistant") -> list[Message]:
    if isinstance(value, str):
        return [{"role": role, "content": read_text(value, column)}]
    return read_messages(value, column)


def _need(row: Columns, *columns: str) -> None:
    missing = [name for name in columns if name not in row]
    if missing:
        raise RowError(f"{' and '.join(missing)} is missing or null")
