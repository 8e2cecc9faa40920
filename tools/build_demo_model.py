"""Makes everything that the embedded demo ships: its tokenizer, its model and its preferences.

    python tools/build_demo_model.py              # rebuilds src/burnish/demo/model and data: about 10 minutes
    python tools/build_demo_model.py --data_only  # only the preferences: two seconds

The corpus comes from the generator in tools/demo_corpus: short questions in English and Chinese, each with replies in
two manners, one that people prefer and one that they do not. The model is trained from nothing to answer in both
manners about equally often, so that the preferences have something to decide. It never sees a held-out question.

Everything is seeded: the data is the same to the byte wherever it is built, the weights on the same machine with the
same number of threads and the same versions.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from demo_corpus.corpus import (
    SEED,
    Corpus,
    Message,
    Row,
    build_corpus,
    held_out_pairs,
    training_dialogue,
    training_pairs,
)

DEMO = Path(__file__).parents[1] / "src" / "burnish" / "demo"

VOCABULARY = 2048
"""Tokens, the 256 bytes and the special ones included."""

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, but for the newline after the last turn: a conversation ends with its end-of-turn token."""

WORDS = r"\p{N}| ?[^\s\p{L}\p{N}]+| ?\p{L}+|\s+"
"""What a token never reaches across: single digits, punctuation, runs of letters, white space."""

DIALOGUES_FOR_TOKENIZER = 20_000

IGNORED = -100
"""The label of positions that are not learned: the prompt's, and padding."""


@dataclass(frozen=True)
class Recipe:
    """How the model is trained."""

    steps: int = 2400
    """Optimizer steps."""
    batch_size: int = 32
    """Dialogues of a step."""
    warmup_steps: int = 80
    """Steps over which the learning rates rise; afterwards they fall linearly to 0."""
    matrix_learning_rate: float = 0.02
    """Peak learning rate of the matrices inside the layers (Muon)."""
    other_learning_rate: float = 3e-3
    """Peak learning rate of embeddings, biases and norms (AdamW)."""
    weight_decay: float = 0.01
    """Decoupled decay of the matrices."""
    micro_batches: int = 2
    """Parts of a step, short dialogues and long ones, so that little is padded. Every step holds both manners: replies
    that people prefer are the longer ones, and batches of one length would teach the manners in turns."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEMO, help="folder that gets model/ and data/")
    parser.add_argument("--data_only", action="store_true", help="write the preferences and leave the model as it is")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="optimizer steps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    corpus = build_corpus()
    write_data(corpus, arguments.output / "data")
    if not arguments.data_only:
        tokenizer = train_tokenizer(corpus)
        model = train_model(corpus, tokenizer, Recipe(steps=arguments.steps))
        save(model, tokenizer, arguments.output / "model")
        print_manners(arguments.output)


def write_data(corpus: Corpus, folder: Path) -> None:
    """Write train.jsonl and test.jsonl: the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", training_pairs(corpus)), ("test", held_out_pairs(corpus))):
        (folder / f"{name}.jsonl").write_bytes(as_json_lines(rows))
        print(f"{name}: {len(rows)} pairs")


def as_json_lines(rows: list[Row]) -> bytes:
    """Rows as UTF-8 JSON Lines, Chinese unescaped."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def train_tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, so that every text has ids; learned from the training dialogues."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(f"{SEED} tokenizer")
    dialogues = (training_dialogue(corpus, rng) for _ in range(DIALOGUES_FOR_TOKENIZER))
    texts = (message["content"] for dialogue in dialogues for message in dialogue)
    tokenizer.train_from_iterator((text + suffix for text in texts for suffix in ("", "\nuser\nassistant\n")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a special token."""
    return tokenizer.get_vocab()[token]


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A small Qwen2 with seeded random weights."""
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=token_id(tokenizer, TURN_END),
        pad_token_id=token_id(tokenizer, END_OF_TEXT),
    )
    return Qwen2ForCausalLM(config)


def train_model(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Qwen2ForCausalLM:
    """Train from nothing on replies in both manners; the loss is the mean over the replies' tokens."""
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters")
    optimizers = build_optimizers(model, recipe)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, _rise_and_fall(recipe)) for optimizer in optimizers]
    started, total = time.monotonic(), 0.0
    for step, parts in enumerate(batches(corpus, tokenizer, recipe), 1):
        learned = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels in parts)
        for input_ids, labels in parts:
            loss = reply_loss(model, input_ids, labels) / learned
            loss.backward()
            total += loss.item()
        for part in (*optimizers, *schedules):
            part.step()
        model.zero_grad()
        if step % 50 == 0:
            print(f"step {step}/{recipe.steps}  loss {total / 50:.4f}  {time.monotonic() - started:.0f} s", flush=True)
            total = 0.0
    return model


def reply_loss(model: Qwen2ForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed negative log-probability of the replies' tokens; only they meet the vocabulary."""
    hidden = model.model(input_ids=input_ids).last_hidden_state
    learned = labels[:, 1:] != IGNORED
    logits = torch.nn.functional.linear(hidden[:, :-1][learned], model.lm_head.weight)
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:][learned], reduction="sum")


def build_optimizers(model: Qwen2ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, which halves the steps needed; AdamW for the rest."""
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.matrix_learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="original"
        ),
        torch.optim.AdamW(others, lr=recipe.other_learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


Padded = tuple[torch.Tensor, torch.Tensor]


def batches(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[list[Padded]]:
    """Micro-batches of every step: input ids and labels, (dialogues, tokens), padded on the right."""
    rng = random.Random(f"{SEED} dialogues")
    pad_id, size = token_id(tokenizer, END_OF_TEXT), recipe.batch_size // recipe.micro_batches
    for _ in range(recipe.steps):
        dialogues = [training_dialogue(corpus, rng) for _ in range(recipe.batch_size)]
        prompts = rendered_ids(tokenizer, [dialogue[:-1] for dialogue in dialogues], add_generation_prompt=True)
        wholes = rendered_ids(tokenizer, dialogues, add_generation_prompt=False)
        pairs = sorted(zip(wholes, map(len, prompts), strict=True), key=lambda pair: len(pair[0]))
        yield [_padded(pairs[start : start + size], pad_id) for start in range(0, len(pairs), size)]


def rendered_ids(tokenizer: Any, dialogues: list[list[Message]], *, add_generation_prompt: bool) -> list[list[int]]:
    """Token ids of dialogues, through the chat template."""
    texts = tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=add_generation_prompt)
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _padded(pairs: list[tuple[list[int], int]], pad_id: int) -> Padded:
    width = max(len(ids) for ids, _ in pairs)
    input_ids = torch.full((len(pairs), width), pad_id)
    labels = torch.full((len(pairs), width), IGNORED)
    for row, (ids, prompt_length) in enumerate(pairs):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt_length : len(ids)] = torch.tensor(ids[prompt_length:])
    return input_ids, labels


def _rise_and_fall(recipe: Recipe) -> Callable[[int], float]:
    def factor(step: int) -> float:
        return min((step + 1) / recipe.warmup_steps, (recipe.steps - step) / (recipe.steps - recipe.warmup_steps))

    return factor


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary Hugging Face folder, the weights in bfloat16."""
    model.bfloat16()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB")


def print_manners(folder: Path) -> None:
    """Say how the model that was written answers held-out questions."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from burnish.demo.showcase import measure_manners

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rows = [json.loads(line) for line in (folder / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    report = measure_manners(model, tokenizer, rows)
    print(f"held-out replies: {report.preferred_share:.1%} preferred, {report.correct_share:.1%} correct")


if __name__ == "__main__":
    main()
