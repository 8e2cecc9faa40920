"""Write rows of UltraFeedback's shape: seeded, conversational, with prompts and answers of realistic lengths.

    python benchmarks/ultrafeedback_rows.py 62135 ultrafeedback.jsonl

The words are real English ones with punctuation, capitals, numbers, lists and code; lengths are log-normal with the
binarised set's medians and spread: prompts of about 70 words with a long tail, answers of about 190 and 160 words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

TEXT = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about than
into them can only other time new some could these two may first then do any like my now over such our man me even
most made after also did many before must through back years where much your way well down should because each just
those people how too little state good very make world still own see men work long get here between both life being
under never day same another know while last might us great old year off come since against go came right used take
three model language question answer therefore however important different example consider understanding information
algorithm function variable database performance temperature environment government development relationship
technology photosynthesis biodiversity infrastructure cryptocurrency neuroscience sustainable collaborative
interpretation
"""
WORDS = TEXT.split()
PROMPT, CHOSEN, REJECTED = (70, 1.0), (190, 0.75), (160, 0.8)
"""Median words and the spread (standard deviation of their logarithm)."""
MOST_WORDS = 1500
SPECIAL = (
    "\n\n1. ", "\n2. ", "\n- ", " (e.g. ", ") ", "? ", "! ", ": ", "; ", " – ", "’s ", " 3.14 ", " 2023 ", "\n\n",
    "\n```python\nfor i in range(10):\n    print(i)\n```\n", " 中文 ", " café ", " 😊 ",
)  # fmt: skip


def main(count: int, target: Path, seed: int = 0) -> None:
    """Write the rows as JSON lines."""
    random = np.random.default_rng(seed)
    with target.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps(_row(random), ensure_ascii=False) + "\n")


def _row(random: np.random.Generator) -> dict[str, object]:
    prompt, chosen, rejected = (_text(random, *lengths) for lengths in (PROMPT, CHOSEN, REJECTED))
    question = {"role": "user", "content": prompt}
    answers = {"chosen": chosen, "rejected": rejected}
    return {name: [question, {"role": "assistant", "content": text}] for name, text in answers.items()}


def _text(random: np.random.Generator, median: float, spread: float) -> str:
    count = int(min(MOST_WORDS, max(3, random.lognormal(np.log(median), spread))))
    words = [WORDS[n] for n in random.zipf(1.3, count) % len(WORDS)]
    for place in random.integers(0, count, count // 12):
        words[place] += SPECIAL[int(random.integers(len(SPECIAL)))]
    for place in random.integers(0, count, count // 10):
        words[place] = words[place].capitalize() + ("." if place % 2 else ",")
    return " ".join(words).strip() or "yes"


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
