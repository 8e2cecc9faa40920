"""Measures a model's manners on held-out questions, and shows two measurements side by side."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Any

from burnish.demo import demo_paths
from burnish.demo.judge import judge

NUCLEUS = 0.9
"""Probability mass that replies are sampled from: the unlikely tail is noise in a model this small."""

SAMPLING_SEED = 7
"""Seed of the sampled replies, the same before and after training."""


@dataclass(frozen=True)
class MannerReport:
    """What the judge found in one reply to each row."""

    preferred_share: float
    """Share of replies that are courteous and complete, in [0, 1]."""
    correct_share: float
    """Share of replies with the right answer, in whatever manner, in [0, 1]."""
    replies: list[str]
    """The replies themselves, in the order of the rows."""


def load_held_out() -> list[dict[str, Any]]:
    """The embedded held-out rows, with the columns that the judge reads."""
    lines = (demo_paths().data / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def measure_manners(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    *,
    max_new_tokens: int = 48,
    batch_size: int = 128,
    greedy: bool = False,
) -> MannerReport:
    """Let the model answer the rows' prompts and judge the replies.

    Replies are sampled at temperature 1 from the likeliest 90 %, with a fixed seed: each is a fair draw, and
    a model with two manners shows both, where the single most likely reply would hide one. Training is not disturbed:
    the state of the random generators and the model's mode are as they were.

    Args:
        model: a causal language model (transformers).
        tokenizer: its tokenizer, with a chat template.
        rows: have `prompt` (messages), `answer` and `language`.
        max_new_tokens: longest reply, in tokens.
        batch_size: prompts answered at once; sampled replies depend on it.
        greedy: take the most likely token instead of sampling.
    """
    replies = generate_replies(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        greedy=greedy,
    )
    verdicts = [judge(reply, row) for reply, row in zip(replies, rows, strict=True)]
    return MannerReport(
        preferred_share=sum(verdict.preferred for verdict in verdicts) / len(rows),
        correct_share=sum(verdict.correct for verdict in verdicts) / len(rows),
        replies=replies,
    )


def generate_replies(
    model: Any,
    tokenizer: Any,
    prompts: list[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    greedy: bool = False,
) -> list[str]:
    """One reply to each prompt, in order; prompts of like length are answered together, to pad little."""
    import torch

    texts = tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    replies = [""] * len(ids)
    was_training = model.training
    model.eval()
    devices = [] if model.device.type == "cpu" else [model.device]
    with torch.random.fork_rng(devices=devices, device_type=model.device.type), torch.no_grad():
        torch.manual_seed(SAMPLING_SEED)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = [ids[place] for place in places]
            for place, reply in zip(places, _answer(model, tokenizer, batch, max_new_tokens, greedy), strict=True):
                replies[place] = reply
    model.train(was_training)
    return replies


def _answer(
    model: Any,
    tokenizer: Any,
    batch: list[list[int]],
    max_new_tokens: int,
    greedy: bool,
) -> list[str]:
    """Replies to prompts given as ids, padded on the left so that every reply starts in the same column."""
    import torch

    width = max(map(len, batch))
    pad_id = tokenizer.pad_token_id
    input_ids = torch.tensor([[pad_id] * (width - len(ids)) + ids for ids in batch], device=model.device)
    lengths = torch.tensor([len(ids) for ids in batch], device=model.device)
    attention_mask = torch.arange(width, device=model.device) >= width - lengths[:, None]
    output = model.generate(
        input_ids=input_ids,
        attention_mask=attention_mask.long(),
        max_new_tokens=max_new_tokens,
        do_sample=not greedy,
        temperature=None if greedy else 1.0,
        top_k=None if greedy else 0,
        top_p=None if greedy else NUCLEUS,
        use_cache=True,
        pad_token_id=pad_id,
    )
    return tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)


def format_comparison(before: MannerReport, after: MannerReport, rows: list[dict[str, Any]], count: int = 3) -> str:
    """The shares before and after, and `count` replies side by side, as plain text that fits the terminal.

    The rows shown are spread over all rows, those first whose reply became preferred. Chinese characters take two
    columns each.
    """
    lines = [
        f"Replies to {len(rows)} held-out questions    before    after",
        f"  in the preferred manner{before.preferred_share:>16.1%}{after.preferred_share:>9.1%}",
        f"  with the right answer{before.correct_share:>18.1%}{after.correct_share:>9.1%}",
    ]
    width = max(24, (min(shutil.get_terminal_size().columns, 120) - 3) // 2)
    for place in _telling_rows(before, after, rows, count):
        lines += ["", f"? {rows[place]['prompt'][-1]['content']}"]
        lines += _side_by_side("before: " + before.replies[place], "after: " + after.replies[place], width)
    return "\n".join(lines)


def _telling_rows(before: MannerReport, after: MannerReport, rows: list[dict[str, Any]], count: int) -> list[int]:
    """Rows to show: changed for the better where there are any, taken by turns from the languages."""
    changed = [
        place
        for place, row in enumerate(rows)
        if judge(after.replies[place], row).preferred and not judge(before.replies[place], row).preferred
    ]
    candidates = changed + [place for place in range(len(rows)) if place not in set(changed)]
    turns: dict[str, int] = {}
    ranks = {}
    for rank, place in enumerate(candidates):
        language = rows[place]["language"]
        turns[language] = turns.get(language, -1) + 1
        ranks[place] = (place not in set(changed), turns[language], rank)
    return sorted(candidates, key=ranks.__getitem__)[:count]


def _side_by_side(left: str, right: str, width: int) -> list[str]:
    columns = [wrap_columns(text, width) for text in (left, right)]
    height = max(map(len, columns))
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [f"{pad_columns(one, width)} | {other}".rstrip() for one, other in zip(*padded, strict=True)]


def columns_of(text: str) -> int:
    """Columns that a text takes on a terminal: two for wide characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def pad_columns(text: str, width: int) -> str:
    """The text with spaces after it, up to `width` columns."""
    return text + " " * (width - columns_of(text))


def wrap_columns(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces or between wide characters; ≥ 1 line."""
    lines, line = [], ""
    for piece in re.findall(r"\s+|[^\s\u2e80-\uffef]+|.", text):
        for part in _pieces(piece, width):
            if columns_of(line + part) > width:
                lines.append(line.rstrip())
                line = "" if part.isspace() else part
            else:
                line += part
    return [*lines, line.rstrip()]


def _pieces(piece: str, width: int) -> list[str]:
    """A piece whole where it fits into a line, else cut."""
    return [piece] if columns_of(piece) <= width else textwrap.wrap(piece, width)
