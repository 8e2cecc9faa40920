"""What the package ships is what the tools make: sizes, counts, and the data to the byte."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from build_demo_model import as_json_lines
from burnish.demo import demo_paths
from demo_corpus.corpus import build_corpus, held_out_pairs, training_pairs

PATHS = demo_paths()


def _rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (PATHS.data / name).read_text(encoding="utf-8").splitlines()]


def test_the_data_is_what_the_generator_makes():
    corpus = build_corpus()
    assert (PATHS.data / "train.jsonl").read_bytes() == as_json_lines(training_pairs(corpus))
    assert (PATHS.data / "test.jsonl").read_bytes() == as_json_lines(held_out_pairs(corpus))


def test_there_are_pairs_enough_and_no_held_out_question_is_trained_on():
    train, test = _rows("train.jsonl"), _rows("test.jsonl")
    assert len(train) >= 1500
    assert len(test) >= 200
    asked = {row["prompt"][-1]["content"] for row in train}
    assert asked.isdisjoint(row["prompt"][-1]["content"] for row in test)


def test_the_model_is_small_and_stored_in_bf16():
    with safe_open(PATHS.model / "model.safetensors", framework="pt") as file:
        tensors = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (no mapping)
        count = 0
        for tensor in tensors:
            assert tensor.get_dtype() == "BF16"
            size = 1
            for length in tensor.get_shape():
                size *= length
            count += size
    assert 2_000_000 <= count <= 3_500_000
    files = [path for folder in (PATHS.model, PATHS.data) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


@pytest.mark.parametrize("text", ["What is 3 plus 4?", "请问三加四等于多少？", "emoji 🙂 and  spaces", "\u2028"])
def test_the_tokenizer_gives_texts_back(text):
    tokenizer = AutoTokenizer.from_pretrained(PATHS.model)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_a_conversation_ends_with_its_end_of_turn_token():
    tokenizer = AutoTokenizer.from_pretrained(PATHS.model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], tokenize=False
    )
    assert text.endswith(tokenizer.eos_token)
