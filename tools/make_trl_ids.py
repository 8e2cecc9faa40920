"""Write the token ids that TRL 1.16 makes of preference rows, for tests/data/test_trl_parity.py.

Run once, in an environment of its own (TRL is no dependency of burnish):

    python -m venv trl-env && trl-env/bin/pip install trl==1.16.0 transformers==5.23.0 datasets==5.2.0
    trl-env/bin/python tools/make_trl_ids.py SMOLLM2_FOLDER GSM8K_PAIRS DPO_ZH

with the folder of SmolLM2-135M-Instruct's tokenizer, gsm8k's pairs-train.jsonl and LLaMA-Factory's dpo_zh_demo.json.
Into tests/golden/trl_ids go two small tokenizers (trained here on the rows below, so that quick tests need no
download), their rows with TRL's ids, and the ids of the real rows with the real tokenizer.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

OUT = Path(__file__).parents[1] / "tests" / "golden" / "trl_ids"
NUM_REAL_ROWS = 200
CHATML = (
    "{%- for message in messages %}"
    "{%- if loop.first and message.role != 'system' %}<|im_start|>system\nYou are a small test.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{%- for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
STYLES: dict[str, dict[str, Any]] = {
    "chatml": {"template": CHATML, "bos": None, "end": "<|im_end|>", "special": ["<|endoftext|>", "<|im_start|>"]},
    "headers": {
        "template": HEADERS,
        "bos": "<|begin_of_text|>",
        "end": "<|eot_id|>",
        "special": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"],
    },
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ASKED = [user("What is 7 times 8?")]
LONGER = [
    {"role": "system", "content": "Answer in one line."},
    user("你好，请问三加四等于几？"),
    said("三加四等于七。"),
    user("And in English? 🙂"),
]
CONVERSATIONS: list[dict[str, Any]] = [
    {"prompt": ASKED, "chosen": [said("7 times 8 is 56.")], "rejected": [said("No idea.")]},
    {"prompt": LONGER, "chosen": [said("Three plus four is seven.")], "rejected": [said("七")]},
    {"prompt": ASKED, "chosen": [said("  56, of course \n")], "rejected": [said("\n\n54")]},
    {
        "prompt": ASKED,
        "chosen": [said("56"), user("Sure?"), said("Yes.")],
        "rejected": [said("54"), user("Sure?"), said("Maybe not.")],
    },
    {
        "prompt": [user("What is the weather in Bern?")],
        "chosen": [said("weather(Bern)"), {"role": "tool", "content": '{"sky": "clear"}'}, said("The sky is clear.")],
        "rejected": [said("I don't know.")],
    },
    {"prompt": [user("Say nothing"), said("…")], "chosen": [said("and so on")], "rejected": [said("no")]},
    {"prompt": ASKED, "chosen": [said("It is <|im_end|> 56")], "rejected": [said("e\u0301 عربي <b>56</b>")]},
    {"prompt": [user("")], "chosen": [said("Please ask me something.")], "rejected": [said("?")]},
]
IMPLICIT = [
    {"chosen": [*row["prompt"], *row["chosen"]], "rejected": [*row["prompt"], *row["rejected"]]}
    for row in CONVERSATIONS[:4]
]
PLAIN = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    {"prompt": "Question: what is 7 times 8? Answer: ", "chosen": "56", "rejected": "no idea"},
    {"prompt": "天空是", "chosen": "蓝色的。", "rejected": "绿"},
    {"prompt": "A line\n", "chosen": "\n\nand more", "rejected": "and less"},
    {"prompt": "One", "chosen": "two<|im_end|>", "rejected": "three<|eot_id|>"},
]
PLAIN_IMPLICIT = [
    {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    {"chosen": "Once upon a time", "rejected": "Once upon a day"},
    {"chosen": "We count abcdef", "rejected": "We count abcxyz"},
]
SETS = {"conversations": CONVERSATIONS, "implicit": IMPLICIT, "plain": PLAIN, "plain_implicit": PLAIN_IMPLICIT}


def build_tokenizer(style: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the rows, with merges across words as large tokenizers have them."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*style["special"], style["end"]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [json.dumps(rows, ensure_ascii=False) for rows in SETS.values()]
    backend.train_from_iterator(texts * 3, trainer)
    if style["bos"]:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{style['bos']} $A", special_tokens=[(style["bos"], backend.token_to_id(style["bos"]))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=style["end"], bos_token=style["bos"])
    tokenizer.chat_template = style["template"]
    return tokenizer


def ids_by_trl(rows: list[dict[str, Any]], tokenizer: Any) -> list[dict[str, list[int]]]:
    """Return prompt_ids, chosen_ids and rejected_ids as DPOTrainer prepares them, before truncation."""
    from datasets import Dataset
    from trl import DPOTrainer  # pyright: ignore[reportMissingImports]

    trainer: Any = SimpleNamespace(_tokenizer=tokenizer)
    settings: Any = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    prepared: Any = DPOTrainer._prepare_dataset(trainer, Dataset.from_list(rows), tokenizer, settings, "train")
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [{name: row[name] for name in names} for row in prepared]


def as_messages(turn: dict[str, str]) -> dict[str, str]:
    role = {"human": "user", "gpt": "assistant", "system": "system"}[turn["from"]]
    return {"role": role, "content": turn["value"]}


def real_rows(gsm8k: Path, chinese: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the first rows of both files as conversational preferences."""
    pairs = [json.loads(line) for line in gsm8k.read_text("utf-8").splitlines()[:NUM_REAL_ROWS]]
    shared = json.loads(chinese.read_text("utf-8"))[:NUM_REAL_ROWS]
    return {
        "gsm8k": [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in pairs],
        "chinese": [
            {
                "prompt": [as_messages(turn) for turn in row["conversations"]],
                "chosen": [as_messages(row["chosen"])],
                "rejected": [as_messages(row["rejected"])],
            }
            for row in shared
        ],
    }


def write_small() -> None:
    """Write the small tokenizers, and the rows with the ids of each."""
    cases: dict[str, Any] = {}
    for name, style in STYLES.items():
        build_tokenizer(style).save_pretrained(OUT / name)
        tokenizer = AutoTokenizer.from_pretrained(OUT / name)
        cases[name] = {
            kind: [{"row": row, **ids} for row, ids in zip(rows, ids_by_trl(rows, tokenizer), strict=True)]
            for kind, rows in SETS.items()
        }
    (OUT / "small.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def write_real(model: Path, gsm8k: Path, chinese: Path) -> None:
    """Write the ids of real rows: for each set lengths (rows, 3) and all ids one after the other, as uint16."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    arrays: dict[str, Any] = {}
    for name, rows in real_rows(gsm8k, chinese).items():
        ids = [
            [row[column] for column in ("prompt_ids", "chosen_ids", "rejected_ids")]
            for row in ids_by_trl(rows, tokenizer)
        ]
        arrays[f"{name}_lengths"] = np.array([[len(part) for part in row] for row in ids], np.uint16)
        arrays[f"{name}_ids"] = np.array([number for row in ids for part in row for number in part], np.uint16)
    np.savez_compressed(OUT / "smollm2.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("gsm8k", type=Path)
    parser.add_argument("chinese", type=Path)
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    write_small()
    write_real(given.model, given.gsm8k, given.chinese)
    sizes = {path.name: path.stat().st_size for path in OUT.rglob("*") if path.is_file()}
    print(sizes, file=sys.stderr)


if __name__ == "__main__":
    main()
