"""Each row is recognised by itself, in any of the known forms."""

from __future__ import annotations

from typing import Any

import pytest

from burnish.data.formats import recognise
from burnish.data.kinds import CONVERSIONS, WrongShape
from burnish.data.rows import DroppedRow, RowError, UnknownForm

USER = [{"role": "user", "content": "Hi"}]
GOOD = [{"role": "assistant", "content": "Hello!"}]
BAD = [{"role": "assistant", "content": "No."}]
SAID = {"from": "gpt", "value": "Hello!"}

PAIRS: dict[str, dict[str, Any]] = {
    "preference": {"prompt": USER, "chosen": GOOD, "rejected": BAD},
    "preference, implicit prompt": {"chosen": USER + GOOD, "rejected": USER + BAD, "score_chosen": 8.0},
    "prompt column beside full conversations": {"prompt": "Hi", "chosen": USER + GOOD, "rejected": USER + BAD},
    "prompt text, answers as messages": {"prompt": "Hi", "chosen": GOOD, "rejected": BAD},
    "prompt messages, answers as text": {"prompt": USER, "chosen": "Hello!", "rejected": "No."},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": SAID,
        "rejected": {"from": "gpt", "value": "No."},
    },
    "OpenAI messages": {"messages": USER, "chosen": GOOD[0], "rejected": BAD[0]},
    "Alpaca, columns": {"instruction": "Hi", "input": "", "chosen": "Hello!", "rejected": "No."},
    "Alpaca, list": {"instruction": "Hi", "output": ["Hello!", "No."]},
    "question": {"question": "Hi", "chosen": "Hello!", "rejected": "No."},
    "transcripts": {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!",
        "rejected": "\n\nHuman: Hi\n\nAssistant: No.",
    },
    "LLMBar, first": {"input": "Hi", "output_1": "Hello!", "output_2": "No.", "label": 1},
    "LLMBar, second": {"input": "Hi", "output_1": "No.", "output_2": "Hello!", "label": 2},
    "PandaLM": {"instruction": "Hi", "response1": "No.", "response2": "Hello!", "annotator1": 2, "annotator2": 2},
    "ranked list of two": {"prompt": USER, "completions": [BAD, GOOD], "ranking": [1, 0]},
    "nulls of other forms": {"prompt": USER, "chosen": GOOD, "rejected": BAD, "text": None, "label": None},
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_every_form_of_a_pair_gives_the_same_conversation(name: str) -> None:
    (example,) = CONVERSIONS["preference"](recognise(PAIRS[name]))
    assert (example.prompt, example.completions) == (USER, [GOOD, BAD])
    assert example.layout == "conversational"


def test_plain_rows_stay_plain() -> None:
    explicit = recognise({"prompt": "The sky is", "chosen": " blue", "rejected": " green"})
    implicit = recognise({"chosen": "The sky is blue", "rejected": "The sky is green"})
    assert explicit.prompt == implicit.prompt == "The sky is"
    assert explicit.completions == implicit.completions == [" blue", " green"]


def test_token_ids_are_taken_as_they_are() -> None:
    example = recognise({"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]})
    assert (example.layout, example.prompt, example.completions) == ("ids", [1, 2], [[3], [4, 5]])


def test_sharegpt_keeps_system_tools_and_calls() -> None:
    example = recognise(
        {
            "system": "Be kind.",
            "tools": '[{"name": "clock"}]',
            "conversations": [
                {"from": "human", "value": "Time?"},
                {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "CET"}}'},
                {"from": "observation", "value": "12:00"},
            ],
            "chosen": {"from": "gpt", "value": "Noon."},
            "rejected": {"from": "gpt", "value": "Late."},
        }
    )
    roles = [turn["role"] for turn in example.prompt if isinstance(turn, dict)]
    assert roles == ["system", "user", "assistant", "tool"]
    call: Any = example.prompt[2]
    assert call["tool_calls"][0]["function"] == {"name": "clock", "arguments": {"zone": "CET"}}
    assert example.tools == [{"name": "clock"}]


def test_alpaca_joins_instruction_and_input_and_keeps_history() -> None:
    example = recognise(
        {"instruction": "Add", "input": "1 and 2", "output": "3", "history": [["Hi", "Hello"]], "system": "Count."}
    )
    words = [turn["content"] for turn in example.prompt if isinstance(turn, dict)]
    assert words == ["Count.", "Hi", "Hello", "Add\n1 and 2"]
    assert example.shape == "prompt_completion"


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"prompt": USER, "completion": GOOD, "label": True}, "unpaired"),
        ({"prompt": "Hi", "completion": " there", "label": 0}, "unpaired"),
        ({"messages": USER + GOOD, "label": False}, "unpaired"),
        ({"conversations": [{"from": "human", "value": "Hi"}, SAID], "kto_tag": True}, "unpaired"),
        ({"prompt": "Hi", "completion": " there"}, "prompt_completion"),
        ({"messages": USER + GOOD}, "messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}, SAID]}, "messages"),
        ({"text": "Once upon a time"}, "text"),
        ({"prompt": USER, "completions": [GOOD, BAD, GOOD], "ranking": [2, 0, 1]}, "ranked"),
        ({"prompt": USER, "ground_truth": "4"}, "prompt"),
    ],
)
def test_other_shapes_are_recognised_for_later_methods(row: dict[str, Any], shape: str) -> None:
    example = recognise(row)
    assert example.shape == shape
    if shape == "ranked":
        assert CONVERSIONS["preference"](example) == [example]
        return
    with pytest.raises(WrongShape, match="not a preference pair"):
        CONVERSIONS["preference"](example)


def test_kinds_convert_what_can_be_converted() -> None:
    pair = recognise({**PAIRS["preference"], "margin": 1.5})
    labelled = CONVERSIONS["unpaired"](pair)
    assert [(one.completions, one.label, one.margin) for one in labelled] == [
        ([GOOD], True, 1.5),
        ([BAD], False, 1.5),
    ]
    assert CONVERSIONS["ranking"](pair)[0].ranking == (0, 1)
    (talk,) = CONVERSIONS["sft"](recognise({"messages": USER + GOOD + USER + BAD}))
    assert (talk.prompt, talk.completions) == (USER, [GOOD + USER + BAD])


def test_optional_columns_are_kept() -> None:
    example = recognise({**PAIRS["preference"], "weight": 2, "margin": -0.5, "chat_template_kwargs": {"think": False}})
    assert (example.weight, example.margin, example.template_kwargs) == (2.0, -0.5, {"think": False})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "chosen is missing or null"),
        ({"chosen": True}, r"chosen is a boolean \(true\), not a list of messages"),
        ({"rejected": 7}, "rejected is a number"),
        ({"rejected": []}, "rejected is an empty list"),
        ({"chosen": [{"role": "assistant", "content": None}]}, r"chosen\[0\].content is null, not text"),
        ({"chosen": [{"role": "robot", "content": "x"}]}, r"chosen\[0\].role is text \('robot'\)"),
        ({"chosen": ["x"]}, r"chosen\[0\] is text"),
        ({"chosen": [{"role": "assistant", "content": "\ud800"}]}, "lone surrogate"),
        ({"chosen": [{"role": "assistant", "content": [{"type": "image"}]}]}, "only text is supported"),
        ({"images": ["a.png"]}, "images, videos and sounds are not supported"),
        ({"weight": -1}, "weight is -1; it must be finite and ≥ 0"),
        ({"weight": "2"}, "weight is text"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs is text"),
        ({"tools": "{"}, "tools is text .* not JSON"),
    ],
)
def test_a_mistyped_row_says_what_is_wrong(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        recognise({**PAIRS["preference"], **change})


def test_a_history_that_is_none_is_refused() -> None:
    with pytest.raises(RowError, match=r"history is a boolean \(true\), not a list"):
        recognise({"instruction": "a", "output": "b", "history": True})


@pytest.mark.parametrize(
    "row",
    [{"question": "2 + 2?", "reply": "4"}, {}, {"prompt": None, "chosen": None}, {"instruction": "Hi", "answer": "x"}],
)
def test_columns_of_no_known_form_are_told_apart_from_mistyped_rows(row: dict[str, Any]) -> None:
    with pytest.raises(UnknownForm):
        recognise(row)


def test_conversations_without_a_common_prompt_are_refused() -> None:
    with pytest.raises(RowError, match="no prompt in common"):
        recognise({"chosen": GOOD, "rejected": BAD})


@pytest.mark.parametrize("votes", [(0, 1, 2), (0, 0, 1), (1, 2, 0)])
def test_judges_who_do_not_agree_make_a_tie(votes: tuple[int, ...]) -> None:
    row = {"instruction": "Hi", "response1": "a", "response2": "b"}
    with pytest.raises(DroppedRow) as drop:
        recognise({**row, **{f"annotator{n}": vote for n, vote in enumerate(votes)}})
    assert drop.value.kind == "tie"


def test_a_question_with_an_answer_is_a_prompt_with_a_completion() -> None:
    example = recognise({"question": "2 + 2?", "answer": "4"})
    assert (example.shape, example.prompt) == ("prompt_completion", [{"role": "user", "content": "2 + 2?"}])
    assert example.completions == [[{"role": "assistant", "content": "4"}]]
