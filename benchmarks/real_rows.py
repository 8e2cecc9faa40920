"""Part real data sets into rows to train on and rows to hold out, as messages that burnish reads.

    python benchmarks/real_rows.py persona persona_agreeableness.jsonl --out agreeableness
    python benchmarks/real_rows.py llmbar llmbar/*.json --out llmbar
    python benchmarks/real_rows.py solutions example_model_solutions.jsonl.gz --out solutions
    python benchmarks/real_rows.py lists example_model_solutions.jsonl.gz --out lists

Each writes OUT-train.jsonl and OUT-test.jsonl. Which rows are held out follows from a hash of the prompt, so that it
never changes and no prompt stands in both.

persona    "question", "answer_matching_behavior", "answer_not_matching_behavior": pairs, Yes against No
llmbar     "input", "output_1", "output_2", "label" (1 or 2): pairs, the better output chosen
solutions  gsm8k's graded model solutions: unpaired rows, labelled with "is_correct"
lists      the same as lists: the four solutions of a question, scored 1 if right and 0 if wrong, where both occur
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HELD_OUT_SHARE = 0.2


def main() -> None:
    """Write both files and say how many rows each has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="start of the two files' names")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for path in options.files:
        for raw in read(path):
            for row in FORMS[options.form](raw):
                rows["test" if is_held_out(row["prompt"][0]["content"]) else "train"].append(row)
    for split, kept in rows.items():
        path = options.out.with_name(f"{options.out.name}-{split}.jsonl")
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
        print(f"{path}: {len(kept):,} rows")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list or of JSON lines, compressed or not."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    yield from json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.splitlines())


def is_held_out(prompt: str) -> bool:
    """Whether rows of this prompt are for evaluation, by its hash."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def persona_rows(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one pair: the answer that matches the behaviour is chosen."""
    yield pair(raw["question"], raw["answer_matching_behavior"].strip(), raw["answer_not_matching_behavior"].strip())


def llmbar_rows(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one pair: the output that `label` names is chosen."""
    better, worse = raw[f"output_{raw['label']}"], raw[f"output_{3 - raw['label']}"]
    yield pair(raw["input"], better, worse)


def solution_rows(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the four graded solutions of a question (6B and 175B models, fine-tuned or with a verifier)."""
    for value in raw.values():
        if isinstance(value, dict):
            yield {
                "prompt": [message("user", raw["question"])],
                "completion": [message("assistant", value["solution"])],
                "label": bool(value["is_correct"]),
            }


def list_rows(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a question's graded solutions as one list, if right and wrong ones are among them."""
    graded = [value for value in raw.values() if isinstance(value, dict) and value["solution"]]
    scores = [float(value["is_correct"]) for value in graded]
    if len(set(scores)) == 2:
        yield {
            "prompt": [message("user", raw["question"])],
            "completions": [[message("assistant", value["solution"])] for value in graded],
            "scores": scores,
        }


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    """Return a preference row of messages."""
    return {
        "prompt": [message("user", prompt)],
        "chosen": [message("assistant", chosen)],
        "rejected": [message("assistant", rejected)],
    }


def message(role: str, content: str) -> dict[str, str]:
    """Return one turn."""
    return {"role": role, "content": content}


FORMS: dict[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]] = {
    "persona": persona_rows,
    "llmbar": llmbar_rows,
    "solutions": solution_rows,
    "lists": list_rows,
}


if __name__ == "__main__":
    main()
