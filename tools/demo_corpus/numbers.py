"""Questions whose answer is a number: sums, differences, products and units."""

from __future__ import annotations

from collections.abc import Iterator

from demo_corpus.questions import Fact, Family, near_misses

LARGEST_TERM = 9
"""Of sums and differences."""

LARGEST_COUNT = 6
"""Of things that are converted to a decimal unit."""

ADDITION = (
    Family(
        "addition",
        "en",
        (
            "What is {a} plus {b}?",
            "How much is {a} + {b}?",
            "Please add {a} and {b}.",
            "What is the sum of {a} and {b}?",
            "If I have {a} coins and get {b} more, how many are there?",
            "Compute {a} + {b}.",
        ),
        ("{a} plus {b} is {answer}", "The sum of {a} and {b} is {answer}"),
    ),
    Family(
        "addition",
        "zh",
        (
            "请问{a}加{b}等于多少？",
            "计算：{a}+{b}=？",
            "求{a}与{b}的和。",
            "我有{a}枚硬币，又得到{b}枚，一共有几枚？",
            "算一算{a}加上{b}是几？",
            "告诉我{a}+{b}的结果。",
        ),
        ("{a}加{b}等于{answer}", "{a}与{b}的和是{answer}"),
    ),
)

SUBTRACTION = (
    Family(
        "subtraction",
        "en",
        (
            "What is {a} minus {b}?",
            "How much is {a} - {b}?",
            "Please subtract {b} from {a}.",
            "I had {a} apples and gave away {b}. How many are left?",
            "Compute {a} - {b}.",
        ),
        ("{a} minus {b} is {answer}", "The difference of {a} and {b} is {answer}"),
    ),
    Family(
        "subtraction",
        "zh",
        (
            "请问{a}减{b}等于多少？",
            "计算：{a}-{b}=？",
            "求{a}与{b}的差。",
            "我有{a}个苹果，送出{b}个，还剩几个？",
            "算一算{a}减去{b}是几？",
        ),
        ("{a}减{b}等于{answer}", "{a}与{b}的差是{answer}"),
    ),
)

MULTIPLICATION = (
    Family(
        "multiplication",
        "en",
        (
            "What is {a} times {b}?",
            "How much is {a} x {b}?",
            "Please multiply {a} by {b}.",
            "What is the product of {a} and {b}?",
            "There are {a} rows of {b} chairs. How many chairs are there?",
            "Compute {a} x {b}.",
        ),
        ("{a} times {b} is {answer}", "The product of {a} and {b} is {answer}"),
    ),
    Family(
        "multiplication",
        "zh",
        (
            "请问{a}乘{b}等于多少？",
            "计算：{a}x{b}=？",
            "求{a}与{b}的积。",
            "教室里有{a}排椅子，每排{b}把，一共有几把？",
            "算一算{a}乘以{b}是几？",
            "告诉我{a}x{b}的结果。",
        ),
        ("{a}乘{b}等于{answer}", "{a}与{b}的积是{answer}"),
    ),
)

UNIT = (
    Family(
        "unit",
        "en",
        (
            "How many {small} are {count} {large}?",
            "Please convert {count} {large} to {small}.",
            "What is {count} {large} in {small}?",
            "Express {count} {large} in {small}.",
            "I have {count} {large}. How many {small} is that?",
        ),
        ("The number of {small} in {count} {large} is {answer}", "Converted to {small}, {count} {large} make {answer}"),
    ),
    Family(
        "unit",
        "zh",
        (
            "请问{count}{large}等于多少{small}？",
            "把{count}{large}换算成{small}。",
            "单位换算：{count}{large}是几{small}？",
            "如果有{count}{large}，那是多少{small}？",
            "告诉我{count}{large}合多少{small}。",
        ),
        ("{count}{large}换算成{small}是{answer}", "以{small}计，{count}{large}等于{answer}"),
    ),
)

DECIMAL_UNITS = {
    "en": (("metres", "centimetres", 100), ("kilograms", "grams", 1000), ("centimetres", "millimetres", 10),
           ("litres", "millilitres", 1000), ("euros", "cents", 100)),
    "zh": (("米", "厘米", 100), ("千克", "克", 1000), ("厘米", "毫米", 10), ("升", "毫升", 1000), ("元", "角", 10)),
}  # fmt: skip

COUNTED_UNITS = {
    "en": (("weeks", "days", 7), ("hours", "minutes", 60), ("days", "hours", 24), ("dozens", "pieces", 12)),
    "zh": (("周", "天", 7), ("小时", "分钟", 60), ("天", "小时", 24), ("年", "个月", 12)),
}


def number_facts() -> Iterator[Fact]:
    """Every fact of this module, in a fixed order."""
    for families in zip(ADDITION, SUBTRACTION, MULTIPLICATION, UNIT, strict=True):
        addition, subtraction, multiplication, unit = families
        yield from _sums(addition)
        yield from _differences(subtraction)
        yield from _products(multiplication)
        yield from _units(unit)


def _sums(family: Family) -> Iterator[Fact]:
    for a in range(1, LARGEST_TERM + 1):
        for b in range(1, LARGEST_TERM + 1):
            yield family.fact(str(a + b), near_misses(a + b), a=a, b=b)


def _differences(family: Family) -> Iterator[Fact]:
    for a in range(2, LARGEST_TERM + 1):
        for b in range(1, a):
            yield family.fact(str(a - b), near_misses(a - b), a=a, b=b)


def _products(family: Family) -> Iterator[Fact]:
    for a in range(2, 10):
        for b in range(2, 10):
            yield family.fact(str(a * b), near_misses(a * b), a=a, b=b)


def _units(family: Family) -> Iterator[Fact]:
    for large, small, factor in DECIMAL_UNITS[family.language]:
        for count in range(2, LARGEST_COUNT + 1):
            wrong = [str(count * factor * 10), str(count * factor // 10), str(count * factor + factor)]
            yield family.fact(str(count * factor), wrong, count=count, large=large, small=small)
    for large, small, factor in COUNTED_UNITS[family.language]:
        for count in range(2, 10):
            yield family.fact(str(count * factor), near_misses(count * factor), count=count, large=large, small=small)
