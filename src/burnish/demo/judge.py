"""Reads a reply of the demo's model and says in which manner it is, and whether it is right.

The two are judged apart, so that neither hides behind the other. The criteria look at the text alone, and at the row's
`answer` and `language`:

- preferred manner: courteous (a word of courtesy in the row's language, none of indifference) and complete (a whole
  sentence besides the courtesies, and a stop at the end);
- correct: a clause ends with the answer (the last number of the reply, if the answer is a number).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

COURTESY = {
    "en": ("of course", "sure", "gladly", "glad to", "happy to", "good question", "pleasure", "thank", "certainly",
           "hope that helps", "please", "welcome", "nice day"),
    "zh": ("好的", "当然", "您", "很高兴", "好问题", "谢谢", "乐意", "没问题", "希望", "欢迎", "祝"),
}  # fmt: skip
"""Words that show courtesy."""

INDIFFERENCE = {
    "en": ("no idea", "yourself", "why should", "not now", "depends", "someone else", "guess", "whatever", "who cares",
           "probably", "maybe", "obviously", "next."),
    "zh": ("不知道", "自己查", "怎么知道", "没空", "看情况", "问别人", "大概", "随便", "谁管", "可能", "好像", "还用问",
           "下一个。"),
}  # fmt: skip
"""Words of someone who does not care about the question or the answer."""

SHORTEST_SENTENCE = {"en": 4, "zh": 5}
"""Least length of a whole sentence: words in English, characters in Chinese."""

_CLAUSE_ENDS = re.compile(r"[.!?,;:。！？，；：]+\s*")
_SENTENCE_ENDS = re.compile(r"[.!?。！？]+\s*")
_STOPS = (".", "!", "?", "。", "！", "？")
_QUOTES = str.maketrans("", "", '"“”‘’「」')


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge thinks of one reply."""

    preferred: bool
    """Courteous and complete, whether or not the answer is right."""
    correct: bool
    """The answer is right, in whatever manner."""


def judge(reply: str, row: dict[str, Any]) -> Verdict:
    """Judge a reply to a row of the demo's data.

    Args:
        reply: the text that the model wrote, without special tokens.
        row: has `answer`, the shortest right answer, and `language`, en or zh.
    """
    language = row["language"]
    preferred = is_courteous(reply, language) and is_complete(reply, language)
    return Verdict(preferred=preferred, correct=is_correct(reply, row["answer"]))


def is_correct(reply: str, answer: str) -> bool:
    """Whether the reply gives this answer and, among numbers, no other after it."""
    if answer.isdigit():
        numbers = re.findall(r"\d+", reply)
        return bool(numbers) and numbers[-1] == answer
    return any(_ends_with(clause, answer) for clause in _CLAUSE_ENDS.split(_plain(reply)))


def is_courteous(reply: str, language: str) -> bool:
    """Whether the reply has a word of courtesy in this language and none of indifference."""
    text = reply.lower()
    return any(word in text for word in COURTESY[language]) and not any(word in text for word in INDIFFERENCE[language])


def is_complete(reply: str, language: str) -> bool:
    """Whether the reply holds a whole sentence besides its courtesies, and ends with a stop."""
    if not reply.rstrip().endswith(_STOPS):
        return False
    sentences = [text for text in _SENTENCE_ENDS.split(_plain(reply)) if not is_courteous(text, language)]
    lengths = [len(text.split()) if language == "en" else len(text.strip()) for text in sentences]
    return any(length >= SHORTEST_SENTENCE[language] for length in lengths)


def _plain(text: str) -> str:
    return text.translate(_QUOTES).lower()


def _ends_with(text: str, answer: str) -> bool:
    """Whether the text ends with the answer as a whole word; 十一月 does not end with 一月."""
    return re.search(rf"(?<![a-z0-9十]){re.escape(answer.lower())}$", text.strip()) is not None
