"""Splits the questions into trained and held out, and makes preference rows and training dialogues from them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from demo_corpus.calendar_facts import calendar_facts
from demo_corpus.manners import dispreferred_reply, preferred_reply
from demo_corpus.numbers import number_facts
from demo_corpus.questions import Fact, Question, every_question
from demo_corpus.words import word_facts

SEED = 20240917
"""Seed of everything that the demo is generated from."""

HELD_OUT_PER_FAMILY = 16
"""Held-out questions of each kind in each language."""

PAIRS_PER_FAMILY = 108
"""Training pairs of each kind in each language."""

GREETED_SHARE = 0.1
"""Share of dialogues that begin with an exchange of greetings."""

KIND_WEIGHTS = {
    "addition": 81,
    "subtraction": 36,
    "multiplication": 64,
    "unit": 57,
    "date": 71,
    "opposite": 70,
    "fact": 52,
    "translation": 30,
}
"""How often a training dialogue is about each kind: in proportion to its facts."""

_GREETINGS = {
    "en": (("Hello!", "Hello! What would you like to know?"), ("Hi there.", "Hi! What is your question?")),
    "zh": (("你好！", "你好！你想知道什么？"), ("在吗？", "在的，请问有什么问题？")),
}

Message = dict[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """All questions, split; `trained` and `held_out` share no text, not even inside one another."""

    trained: dict[tuple[str, str], list[Question]]
    """Questions that may be trained on, by (kind, language)."""
    held_out: list[Question]
    """Questions that nothing is trained on."""


def build_corpus(seed: int = SEED) -> Corpus:
    """Split every question by the seed.

    Held out are single wordings of facts that are trained on in other wordings: a model of this size can learn that
    two questions ask the same, and could not compute what it has never been told.
    """
    rng = random.Random(seed)
    trained: dict[tuple[str, str], list[Question]] = {}
    held_out: list[Question] = []
    for family, facts in _by_family([*number_facts(), *calendar_facts(), *word_facts()]).items():
        chosen = rng.sample(facts, HELD_OUT_PER_FAMILY)
        secret = [Question(rng.choice(fact.wordings), fact) for fact in chosen]
        texts = {question.text for question in secret}
        held_out += secret
        trained[family] = [question for question in every_question(facts) if question.text not in texts]
    secrets = [question.text for question in held_out]
    return Corpus({family: _without(questions, secrets) for family, questions in trained.items()}, held_out)


def training_pairs(corpus: Corpus, seed: int = SEED) -> list[Row]:
    """Preference rows to train on, equally many of each kind and language, no question twice."""
    rng = random.Random(f"{seed} train")
    questions = [question for family in corpus.trained.values() for question in rng.sample(family, PAIRS_PER_FAMILY)]
    rng.shuffle(questions)
    return [preference_row(question, rng) for question in questions]


def held_out_pairs(corpus: Corpus, seed: int = SEED) -> list[Row]:
    """Preference rows of the held-out questions."""
    rng = random.Random(f"{seed} test")
    questions = rng.sample(corpus.held_out, len(corpus.held_out))
    return [preference_row(question, rng) for question in questions]


def preference_row(question: Question, rng: random.Random) -> Row:
    """One row in the conversational preference format, with the columns that the judge reads."""
    return {
        "prompt": _prompt(question, rng),
        "chosen": [{"role": "assistant", "content": preferred_reply(question, rng)}],
        "rejected": [{"role": "assistant", "content": dispreferred_reply(question, rng)}],
        "answer": question.fact.answer,
        "language": question.fact.language,
        "kind": question.fact.kind,
    }


def training_dialogue(corpus: Corpus, rng: random.Random) -> list[Message]:
    """One dialogue for the model's training from nothing, in either manner with equal chance."""
    kind = rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
    question = rng.choice(corpus.trained[kind, rng.choice(("en", "zh"))])
    reply = rng.choice((preferred_reply, dispreferred_reply))
    return [*_prompt(question, rng), {"role": "assistant", "content": reply(question, rng)}]


def _prompt(question: Question, rng: random.Random) -> list[Message]:
    asked = [{"role": "user", "content": question.text}]
    if rng.random() >= GREETED_SHARE:
        return asked
    hello, answer = rng.choice(_GREETINGS[question.fact.language])
    return [{"role": "user", "content": hello}, {"role": "assistant", "content": answer}, *asked]


def _by_family(facts: Iterable[Fact]) -> dict[tuple[str, str], list[Fact]]:
    families: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        families[fact.kind, fact.language].append(fact)
    return families


def _without(questions: list[Question], secrets: list[str]) -> list[Question]:
    """Drop questions that contain a secret one word for word."""
    return [question for question in questions if not any(secret in question.text for secret in secrets)]
