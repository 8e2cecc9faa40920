"""Only what the policy says counts: not other people's turns, not the outputs of tools."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from burnish.data.chat import Conversation, render
from burnish.errors import DataError
from row_builders import pair

Prepare = Callable[..., Any]
ASK = [{"role": "user", "content": "Weather in Bern?"}]


def _said(text: str, role: str = "assistant") -> dict[str, str]:
    return {"role": role, "content": text}


TALK = {
    "prompt": ASK,
    "chosen": [
        _said("look(Bern)"),
        _said("clear sky", "tool"),
        _said("It is clear."),
        _said("Thanks", "user"),
        _said("Gladly."),
    ],
    "rejected": [_said("No idea.")],
}


def _parts(group: Any, tokenizer: Any, number: int = 0) -> tuple[str, str]:
    """Return the counted and the uncounted text of a completion."""
    ids, mask = group.completion_ids[number], group.completion_mask[number]
    return tokenizer.decode(ids[mask]), tokenizer.decode(ids[~mask])


@pytest.mark.parametrize("style", ["chatml", "headers"])
def test_other_turns_inside_a_completion_are_not_counted(style: str, prepare: Prepare, request: Any) -> None:
    tokenizer = request.getfixturevalue(style)
    prepared = prepare([TALK], tokenizer)
    counted, uncounted = _parts(prepared.groups[0], tokenizer)
    end, line = ("<|im_end|>", "\n") if style == "chatml" else ("<|eot_id|>", "")
    assert counted == f"look(Bern){end}{line}It is clear.{end}{line}Gladly.{end}{line}"
    for words in ("clear sky", "Thanks", "tool", "user", "assistant"):
        assert words in uncounted
    assert _parts(prepared.groups[0], tokenizer, 1)[1] == ""
    assert not prepared.report.counts


def test_a_completion_that_opens_with_another_turn_counts_only_the_answer(prepare: Prepare, chatml: Any) -> None:
    prompt = [*ASK, _said("Which one?")]
    row = {
        "prompt": prompt,
        "chosen": [_said("In Switzerland", "user"), _said("Clear.")],
        "rejected": [_said("In Switzerland", "user"), _said("No idea.")],
    }
    prepared = prepare([row])
    counted, uncounted = _parts(prepared.groups[0], chatml)
    assert counted == "Clear.<|im_end|>\n"
    assert "In Switzerland" in uncounted
    assert "prompt_not_prefix" not in prepared.report.counts


def test_a_completion_without_the_assistant_is_refused(prepare: Prepare) -> None:
    with pytest.raises(DataError, match="the completion has no assistant turn"):
        prepare([{**TALK, "chosen": [_said("Thanks", "user")]}])


FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1].strip() }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_forgets_earlier_reasoning_still_has_its_turns_found(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = FORGETFUL
    thought = "<think>hm</think>"
    row = {**TALK, "chosen": [_said(f"{thought}Yes."), _said("Sure?", "user"), _said(f"{thought}Quite.")]}
    counted, uncounted = _parts(prepare([row], tokenizer).groups[0], tokenizer)
    assert counted == f"Yes.<|im_end|>\n{thought}Quite.<|im_end|>\n"
    assert "Sure?" in uncounted


def test_a_template_that_renders_prompts_otherwise_stops_above_the_bound(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    rows = [pair(f"Question {number}", chosen="Yes", rejected="No") for number in range(3)]
    with pytest.raises(
        DataError, match=r"writes 3 of 3 prompts otherwise .*, first data set, row 1(.|\n)*--chat_template_path"
    ):
        prepare(rows, tokenizer)


def test_a_few_prompts_rendered_otherwise_are_counted_only(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template += "{% if add_generation_prompt and messages[0].content == 'odd' %}<think>\n{% endif %}"
    rows = [pair("odd" if number == 5 else f"Question {number}") for number in range(20)]
    prepared = prepare(rows, tokenizer)
    assert prepared.report.counts["prompt_not_prefix"] == 1
    assert len(prepared.groups) == 20
    assert chatml.decode(prepared.groups[5].prompt_ids).endswith("<|im_start|>assistant\n")


def test_a_template_without_an_end_of_turn_is_noted(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    report = prepare([pair(chosen="a longer answer", rejected="another answer")], tokenizer).report
    assert report.counts["no_end_token"] == 1
    assert "without an end-of-turn token" in report.one_line()


def test_conversations_without_a_template_are_refused_with_the_cure(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"no chat template\.\nGive one: --chat_template_path"):
        prepare([pair()], tokenizer)
    assert len(prepare([{"prompt": "a", "chosen": " b", "rejected": " c"}], tokenizer).groups) == 1


def test_a_row_that_the_template_refuses_is_an_unusable_row(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = "{% if messages[0].content == 'no' %}{{ 1 / 0 }}{% endif %}" + chatml.chat_template
    rows = [pair("yes"), pair("no"), pair("also yes")]
    with pytest.raises(DataError, match="data set, row 2: the chat template refuses it: division by zero"):
        prepare(rows, tokenizer)
    assert [group.row for group in prepare(rows, tokenizer, on_bad_row="skip").groups] == [1, 3]


def test_a_row_cannot_reach_out_of_the_template(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = "{{ ''.__class__.__mro__ }}" + chatml.chat_template
    with pytest.raises(DataError, match="the chat template refuses it"):
        prepare([pair()], tokenizer)
    with pytest.raises(DataError, match="chat_template_kwargs must not set chat_template"):
        prepare([pair(chat_template_kwargs={"chat_template": "x"})])


def test_tools_and_template_arguments_reach_the_template(prepare: Prepare, chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = "{{ mood }}{% if tools %}{{ tools[0].name }}{% endif %}" + chatml.chat_template
    rows = [
        pair("plain"),
        pair("with tools", tools=[{"name": "clock"}]),
        pair("with both", tools='[{"name": "clock"}]', chat_template_kwargs={"mood": "calm "}),
    ]
    prompts = [chatml.decode(group.prompt_ids) for group in prepare(rows, tokenizer).groups]
    assert prompts[0].startswith("<|im_start|>system")
    assert prompts[1].startswith("clock<|im_start|>system")
    assert prompts[2].startswith("calm clock<|im_start|>system")


LEAKY = """
{%- if messages[0].content == 'loud' %}{% set mood = 'loud' %}{% endif %}
{%- if mood is defined %}({{ mood }}){% endif %}
{%- for message in messages %}{% set last = message.role %}{{ message.role + ': ' + message.content }}{% endfor %}
{%- if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}{{ last is defined }}
"""


def test_what_a_template_sets_for_one_conversation_is_gone_for_the_next(chatml: Any) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = LEAKY
    talks = [[{"role": "user", "content": words}] for words in ("calm", "loud", "calm", "loud", "calm")]
    for opening in (False, True):
        expected = [
            tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=opening) for talk in talks
        ]
        assert render(tokenizer, [Conversation(talk, add_generation_prompt=opening) for talk in talks]) == expected
        assert len(set(expected)) == 2
