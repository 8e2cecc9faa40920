"""The benchmark's rows: real right-and-wrong solutions, and pairs with long prompts from real conversations."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import long_prompts

SHARED = Path(__file__).parents[2] / "shared" / "data"
GSM8K = SHARED / "gsm8k" / "pairs-train.jsonl"
CONVERSATIONS = SHARED / "llamafactory" / "dpo_en_demo.json"


def find_rows(gsm8k: Path | None, long: Path | None, work: Path) -> dict[str, Path]:
    """Return the file of each kind of pairs; those with long prompts are made where no file is given.

    Raises:
        SystemExit: a file is not there.
    """
    for path, flag in ((gsm8k or GSM8K, "--gsm8k"), (long or CONVERSATIONS, "--long")):
        if not path.exists():
            sys.exit(f"{path} is not there: give a file of preference rows with {flag} PAIRS.jsonl")
    if long is None:
        work.mkdir(parents=True, exist_ok=True)
        long = work / "long-prompts.jsonl"
        long_prompts.main(CONVERSATIONS, long)
    return {"gsm8k": gsm8k or GSM8K, "long": long}


def cut_rows(source: Path, target: Path, *, first: int, count: int) -> Path:
    """Write some rows of a file into one of their own, so that both sides read the same.

    Raises:
        SystemExit: the file has fewer.
    """
    with source.open(encoding="utf-8") as file:
        lines = list(islice(file, first, first + count))
    if len(lines) < count:
        sys.exit(f"{source} has {first + len(lines)} rows, and {first + count} are needed: lower --pairs")
    target.write_text("".join(lines), encoding="utf-8")
    return target


def many_rows(source: Path, target: Path, *, count: int) -> Path:
    """Write `count` rows; a file that has fewer is gone through again, each time with other first words."""
    with source.open(encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line in islice(file, count)]
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            turn, row = divmod(number, len(rows))
            file.write(json.dumps(_numbered(rows[row], turn), ensure_ascii=False) + "\n")
    return target


def _numbered(row: dict[str, Any], turn: int) -> dict[str, Any]:
    if turn == 0:
        return row
    first, *rest = row["prompt"]
    return row | {"prompt": [first | {"content": f"({turn}) {first['content']}"}, *rest]}
