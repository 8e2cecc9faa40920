"""Questions about days of the week and months."""

from __future__ import annotations

from collections.abc import Iterator

from demo_corpus.questions import Fact, Family, near_misses, neighbours

DAYS = {
    "en": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "zh": ["星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"],
}

MONTHS = {
    "en": [
        "January", "February", "March", "April", "May", "June",
        "July", "August", "September", "October", "November", "December",
    ],
    "zh": ["一月", "二月", "三月", "四月", "五月", "六月", "七月", "八月", "九月", "十月", "十一月", "十二月"],
}  # fmt: skip

DAYS_OF_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

DAYS_LATER = {
    "en": Family(
        "date",
        "en",
        (
            "Which day comes {n} days after {start}?",
            "Today is {start}. What day is it in {n} days?",
            "What day of the week is {n} days later than {start}?",
            "It is {start} now. Please name the day {n} days from now.",
            "Starting on {start}, which day is it after {n} days?",
        ),
        ("The day {n} days after {start} is {answer}", "{n} days after {start} comes {answer}"),
    ),
    "zh": Family(
        "date",
        "zh",
        (
            "请问{start}之后{n}天是星期几？",
            "今天是{start}，{n}天后是星期几？",
            "从{start}算起，过{n}天是星期几？",
            "如果今天{start}，再过{n}天是哪一天？",
            "告诉我{start}的{n}天以后是星期几。",
        ),
        ("{start}之后{n}天是{answer}", "从{start}起过{n}天是{answer}"),
    ),
}

NEXT = {
    "en": Family(
        "date",
        "en",
        (
            "Which {unit} comes right {side} {start}?",
            "What {unit} is just {side} {start}?",
            "Please name the {unit} {side} {start}.",
            "Tell me the {unit} that is directly {side} {start}.",
            "I need the {unit} {side} {start}. Which one is it?",
        ),
        ("The {unit} {side} {start} is {answer}", "Right {side} {start} comes {answer}"),
    ),
    "zh": Family(
        "date",
        "zh",
        (
            "请问{start}的{side}是什么？",
            "紧挨着{start}的{side}是哪个？",
            "说出{start}的{side}。",
            "告诉我{start}的{side}是哪个。",
            "我想知道{start}的{side}是什么。",
        ),
        ("{start}的{side}是{answer}",),
    ),
}

LENGTH = {
    "en": Family(
        "date",
        "en",
        (
            "How many days does {start} have?",
            "How long is {start} in days in a common year?",
            "Please tell me the number of days in {start}.",
            "Count the days of {start}. How many are there?",
        ),
        ("The number of days in {start} is {answer}", "In a common year the days of {start} number {answer}"),
    ),
    "zh": Family(
        "date",
        "zh",
        ("请问{start}有多少天？", "平年的{start}有几天？", "说出{start}的天数。", "告诉我{start}一共有几天。"),
        ("平年{start}的天数是{answer}",),
    ),
}

SIDES = {"en": {1: "after", -1: "before"}, "zh": {1: "下一", -1: "上一"}}


def calendar_facts() -> Iterator[Fact]:
    """Every fact of this module, in a fixed order."""
    for language in ("en", "zh"):
        yield from _days_later(language)
        yield from _next_names(language)
        for month, length in zip(MONTHS[language], DAYS_OF_MONTH, strict=True):
            yield LENGTH[language].fact(str(length), near_misses(length), start=month)


def _days_later(language: str) -> Iterator[Fact]:
    days = DAYS[language]
    for place, start in enumerate(days):
        for n in range(2, 5):
            target = (place + n) % 7
            yield DAYS_LATER[language].fact(days[target], neighbours(days, target), start=start, n=n)


def _next_names(language: str) -> Iterator[Fact]:
    for names, unit in ((DAYS[language], {"en": "day", "zh": "天"}), (MONTHS[language], {"en": "month", "zh": "个月"})):
        for place, start in enumerate(names):
            for step, side in SIDES[language].items():
                target = (place + step) % len(names)
                words = {"unit": unit["en"], "side": side if language == "en" else side + unit["zh"]}
                yield NEXT[language].fact(names[target], neighbours(names, target), start=start, **words)
