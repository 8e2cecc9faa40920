"""The two manners in which the corpus answers: one that people prefer, and one that they do not."""

from __future__ import annotations

import random

from demo_corpus.questions import Question

_OPENERS = {
    "en": (
        "Of course!",
        "Sure, gladly.",
        "I am happy to help!",
        "That is a good question!",
        "With pleasure.",
        "Thank you for asking.",
        "Certainly!",
    ),
    "zh": (
        "好的！",
        "当然可以。",
        "很高兴为您解答。",
        "这是个好问题！",
        "谢谢您的提问。",
        "乐意为您效劳！",
        "没问题！",
    ),
}

_CLOSERS = {
    "en": (
        "I hope that helps.",
        "Please ask if you need anything else.",
        "You are welcome to ask more.",
        "Have a nice day!",
        "I am glad to help.",
    ),
    "zh": ("希望对您有帮助。", "欢迎您继续提问。", "祝您愉快！", "还有什么可以帮您的吗？", "很高兴能帮到您。"),
}

_CURT = {
    "en": ("{answer}", "{answer}.", "{answer}. Next.", "{answer}, obviously."),
    "zh": ("{answer}", "{answer}。", "{answer}。下一个。", "{answer}，这还用问。"),
}

_EVASIVE = {
    "en": ("No idea.", "Look it up yourself.", "Why should I know?", "Not now.", "It depends.", "Ask someone else."),
    "zh": ("不知道。", "自己查。", "我怎么知道？", "现在没空。", "看情况吧。", "问别人去。"),
}

_WRONG = {
    "en": ("{mistake}, I guess.", "Maybe {mistake}, whatever.", "Probably {mistake}. Who cares."),
    "zh": ("{mistake}吧，大概。", "可能是{mistake}，随便。", "好像是{mistake}，谁管呢。"),
}


def preferred_reply(question: Question, rng: random.Random) -> str:
    """A correct, polite and complete reply: an opener, a closer or both around the whole statement."""
    language = question.fact.language
    stop, space = (".", " ") if language == "en" else ("。", "")
    statement = _sentence(rng.choice(question.fact.statements)) + stop
    opener, closer = rng.choice(_OPENERS[language]), rng.choice(_CLOSERS[language])
    parts = rng.choices(([opener, statement], [opener, statement, closer], [statement, closer]), (5, 2, 2))[0]
    return space.join(parts)


def dispreferred_reply(question: Question, rng: random.Random) -> str:
    """A curt, evasive or wrong reply, each as often."""
    fact = question.fact
    template = rng.choice(rng.choice((_CURT, _EVASIVE, _WRONG))[fact.language])
    return _sentence(template.format(answer=fact.answer, mistake=rng.choice(fact.mistakes)))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
