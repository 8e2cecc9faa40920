"""Make preference pairs with long prompts and short completions from multi-turn rows of LLaMA-Factory's DPO file.

    python benchmarks/long_prompts.py ../shared/data/llamafactory/dpo_en_demo.json long-prompts.jsonl

A pair keeps its conversation, but each turn ends after its first sentences (within TURN characters) and so do the two
completions (within COMPLETION): the shape of chat histories and of documents with questions, at a length that a CPU can
train on. Kept are pairs whose prompt has at least RATIO times the characters of its mean completion.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TURN, COMPLETION = 140, 170
"""Most characters of a prompt's turn and of a completion."""
RATIO = 2
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
SENTENCE_END = re.compile(r"[.!?:\n](?=\s|$)")


def main(source: Path, target: Path) -> None:
    """Write the pairs as JSON lines."""
    rows = json.loads(source.read_text(encoding="utf-8"))
    target.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs(rows)), encoding="utf-8")


def pairs(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the conversational pair of each row that has several turns and the shape."""
    for row in rows:
        turns = row["conversations"]
        if not 3 <= len(turns) <= 5 or any(turn["from"] not in ROLES for turn in turns):
            continue
        prompt = [{"role": ROLES[turn["from"]], "content": shorten(turn["value"], TURN)} for turn in turns]
        chosen, rejected = (shorten(row[side]["value"], COMPLETION) for side in ("chosen", "rejected"))
        length = sum(len(turn["content"]) for turn in prompt)
        if chosen and rejected and chosen != rejected and 2 * length >= RATIO * (len(chosen) + len(rejected)):
            yield {"prompt": prompt, "chosen": _answer(chosen), "rejected": _answer(rejected)}


def shorten(text: str, most: int) -> str:
    """Return the first sentences of a text that fit, or its first words where not even one does."""
    text = text.strip()
    if len(text) <= most:
        return text
    ends = [match.end() for match in SENTENCE_END.finditer(text, 0, most)]
    return text[: ends[-1]].rstrip() if ends else text[:most].rsplit(" ", 1)[0]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
