"""Questions whose answer is a word: opposites, little facts and translations. The tables are in tables.py."""

from __future__ import annotations

from collections.abc import Iterator

from demo_corpus import tables
from demo_corpus.questions import Fact, Family, near_misses, neighbours

OPPOSITE = {
    "en": Family(
        "opposite",
        "en",
        (
            'What is the opposite of "{word}"?',
            'Which word means the opposite of "{word}"?',
            'Please name the antonym of "{word}".',
            'I am looking for the opposite of "{word}". What is it?',
            'Give me a word that is opposed to "{word}".',
            'If something is not "{word}" but the reverse, what is it?',
        ),
        ('The opposite of "{word}" is "{answer}"', 'The antonym of "{word}" is "{answer}"'),
    ),
    "zh": Family(
        "opposite",
        "zh",
        (
            "请问“{word}”的反义词是什么？",
            "与“{word}”意思相反的词是哪个？",
            "说出“{word}”的反义词。",
            "哪个词和“{word}”相反？",
            "告诉我“{word}”的反义词是哪个。",
            "我在找“{word}”的反义词，是什么？",
        ),
        ("“{word}”的反义词是“{answer}”", "与“{word}”意思相反的词是“{answer}”"),
    ),
}

TRANSLATION = {
    "en": Family(
        "translation",
        "en",
        (
            'How do you say "{word}" in Chinese?',
            'What is the Chinese word for "{word}"?',
            'Please translate "{word}" into Chinese.',
            'What does "{word}" mean in Chinese?',
            'I want to say "{word}" in Chinese. Which word is it?',
        ),
        ('The Chinese word for "{word}" is "{answer}"', 'In Chinese, "{word}" is "{answer}"'),
    ),
    "zh": Family(
        "translation",
        "zh",
        (
            "请问“{word}”用英语怎么说？",
            "把“{word}”翻译成英语。",
            "“{word}”的英文是什么？",
            "告诉我“{word}”对应的英语单词。",
            "英语里怎么说“{word}”？",
        ),
        ("“{word}”的英语是“{answer}”", "“{word}”用英语说是“{answer}”"),
    ),
}


def word_facts() -> Iterator[Fact]:
    """Every fact of this module, in a fixed order."""
    for language, pairs in tables.OPPOSITES.items():
        yield from _both_ways(OPPOSITE[language], pairs)
    yield from _lookups(TRANSLATION["en"], tables.ENGLISH_TO_CHINESE)
    yield from _lookups(TRANSLATION["zh"], {chinese: english for english, chinese in tables.ENGLISH_TO_CHINESE.items()})
    for language, lookups in tables.LITTLE_FACTS.items():
        for wordings, statements, table in lookups:
            yield from _lookups(Family("fact", language, wordings, statements), table)


def _both_ways(family: Family, pairs: dict[str, str]) -> Iterator[Fact]:
    words = [word for pair in pairs.items() for word in pair]
    for place, word in enumerate(words):
        answer = words[place ^ 1]
        start = place | 1
        yield family.fact(answer, neighbours(words, start), word=word)


def _lookups(family: Family, table: dict[str, str]) -> Iterator[Fact]:
    answers = list(dict.fromkeys(table.values()))
    for word, answer in table.items():
        wrong = near_misses(int(answer)) if answer.isdigit() else neighbours(answers, answers.index(answer))
        yield family.fact(answer, wrong, word=word)
