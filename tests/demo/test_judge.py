"""The judge reads replies as a person would."""

from __future__ import annotations

import subprocess
import sys

import pytest

from burnish.demo.judge import judge

SUM = {"answer": "12", "language": "en"}
WORD = {"answer": "cold", "language": "en"}
MONTH = {"answer": "一月", "language": "zh"}


@pytest.mark.parametrize(
    ("reply", "row"),
    [
        ("Of course! 7 plus 5 is 12.", SUM),
        ('The opposite of "hot" is "cold". Have a nice day!', WORD),
        ("好的！十二月的下一个月是一月。", MONTH),
    ],
)
def test_polite_complete_and_right_is_preferred(reply, row):
    assert judge(reply, row).preferred


@pytest.mark.parametrize(
    ("reply", "row"),
    [
        ("12", SUM),
        ("12, obviously.", SUM),
        ("Cold.", WORD),
        ("一月。下一个。", MONTH),
        ("7 plus 5 is 12.", SUM),
        ("Of course! 12.", SUM),
        ("Gladly! 7 plus 5 is 12", SUM),
        ("Sure, 7 plus 5 is 12, whatever.", SUM),
        ("好的！一月。", MONTH),
    ],
)
def test_right_but_curt_or_cut_off_is_correct_and_not_preferred(reply, row):
    verdict = judge(reply, row)
    assert verdict.correct
    assert not verdict.preferred


@pytest.mark.parametrize(
    ("reply", "row"),
    [
        ("Of course! 7 plus 5 is 13.", SUM),
        ("Of course! 12 plus 5 is 17.", SUM),
        ("Of course! 7 plus 5 is 112.", SUM),
        ('Gladly! The opposite of "cold" is "hot".', WORD),
        ("好的！十二月的下一个月是十一月。", MONTH),
        ("I am happy to help!", WORD),
        ("No idea.", SUM),
        ("", SUM),
    ],
)
def test_a_wrong_or_missing_answer_is_never_correct(reply, row):
    assert not judge(reply, row).correct


@pytest.mark.parametrize(
    ("reply", "row"),
    [("Of course! 7 plus 5 is 13.", SUM), ("好的！十二月的下一个月是十一月。", MONTH)],
)
def test_the_manner_is_judged_apart_from_the_answer(reply, row):
    verdict = judge(reply, row)
    assert verdict.preferred
    assert not verdict.correct


@pytest.mark.parametrize("reply", ["I am happy to help!", "No idea.", "", "Of course! Thank you for asking."])
def test_courtesy_without_a_statement_is_not_preferred(reply):
    assert not judge(reply, SUM).preferred


def test_courtesy_counts_in_the_language_of_the_question():
    assert not judge("Of course! 十二月的下一个月是一月。", MONTH).preferred


def test_the_judge_needs_no_torch():
    code = "import sys, burnish.demo.judge, burnish.demo.showcase; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
