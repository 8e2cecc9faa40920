"""The corpus: what it asks, what it keeps secret, and that it is the same every time."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from burnish.demo.judge import is_correct, judge
from demo_corpus import corpus as corpus_module
from demo_corpus.calendar_facts import calendar_facts
from demo_corpus.corpus import Corpus, build_corpus, held_out_pairs, training_dialogue, training_pairs
from demo_corpus.manners import dispreferred_reply, preferred_reply
from demo_corpus.numbers import number_facts
from demo_corpus.questions import Question, every_question
from demo_corpus.words import word_facts


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return list(every_question([*number_facts(), *calendar_facts(), *word_facts()]))


def test_no_held_out_question_occurs_in_what_the_model_may_see(corpus):
    trained = "\n".join(question.text for family in corpus.trained.values() for question in family)
    assert [question.text for question in corpus.held_out if question.text in trained] == []


def test_dialogues_and_training_pairs_ask_only_trained_questions(corpus):
    rng = random.Random(3)
    allowed = {question.text for family in corpus.trained.values() for question in family}
    asked = {training_dialogue(corpus, rng)[-2]["content"] for _ in range(3000)}
    asked |= {row["prompt"][-1]["content"] for row in training_pairs(corpus)}
    assert asked <= allowed


def test_every_held_out_fact_is_trained_in_another_wording(corpus):
    trained = {question.fact for family in corpus.trained.values() for question in family}
    assert {question.fact for question in corpus.held_out} <= trained


def test_no_question_has_two_answers(questions):
    answers = {}
    for question in questions:
        assert answers.setdefault(question.text, question.fact.answer) == question.fact.answer, question.text


def test_both_languages_and_every_kind_are_held_out_equally_often(corpus):
    families = Counter((question.fact.kind, question.fact.language) for question in corpus.held_out)
    assert set(families) == {(kind, language) for kind in corpus_module.KIND_WEIGHTS for language in ("en", "zh")}
    assert set(families.values()) == {corpus_module.HELD_OUT_PER_FAMILY}


def test_the_model_learns_both_manners_about_equally(corpus):
    rng = random.Random(5)
    answers = {
        question.text: {"answer": question.fact.answer, "language": question.fact.language}
        for family in corpus.trained.values()
        for question in family
    }
    dialogues = [training_dialogue(corpus, rng) for _ in range(4000)]
    share = sum(judge(d[-1]["content"], answers[d[-2]["content"]]).preferred for d in dialogues) / len(dialogues)
    assert abs(share - 0.5) < 0.03


def test_the_judge_tells_the_two_manners_apart_for_every_question(questions):
    rng = random.Random(11)
    for question in questions:
        row = {"answer": question.fact.answer, "language": question.fact.language}
        good, bad = preferred_reply(question, rng), dispreferred_reply(question, rng)
        assert judge(good, row).preferred, (question.text, good)
        assert judge(good, row).correct, (question.text, good)
        assert not judge(bad, row).preferred, (question.text, bad)


def test_no_mistake_is_judged_correct(questions):
    for fact in dict.fromkeys(question.fact for question in questions):
        for mistake in fact.mistakes:
            for statement in fact.statements:
                claimed = statement[: len(statement) - len(fact.answer) - 1] + mistake
                assert not is_correct(mistake, fact.answer), (fact.answer, mistake)
                assert not is_correct(f"{claimed}.", fact.answer), (fact.answer, claimed)


def test_the_corpus_depends_on_its_seed_only(corpus):
    again = build_corpus()
    assert training_pairs(again) == training_pairs(corpus)
    assert held_out_pairs(again) == held_out_pairs(corpus)
    assert held_out_pairs(build_corpus(1), 1) != held_out_pairs(corpus)


def test_rows_are_conversational_preferences(corpus):
    for row in training_pairs(corpus)[:50]:
        assert row["prompt"][-1]["role"] == "user"
        assert [message["role"] for message in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
        assert row["chosen"] != row["rejected"]
        assert json.loads(json.dumps(row)) == row
