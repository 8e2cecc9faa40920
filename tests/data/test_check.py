"""The audit says what a run would make of the rows, and what only shows over all of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnish.data.check.audit import DataCheck, check_data
from burnish.data.check.lengths import describe_lengths, length_bias
from burnish.data.settings import DataSettings
from burnish.data.sources import rows_of
from row_builders import pair

Check = Callable[..., DataCheck]


@pytest.fixture
def check(chatml: Any) -> Check:
    """Audit a list of rows with settings by name; `tokenizer=None` measures in characters."""

    def run(
        rows: list[Any], tokenizer: Any = chatml, *, held_out: Any = None, kind: Any = None, **settings: Any
    ) -> Any:
        eval_rows = None if held_out is None else rows_of(held_out, name="held out")
        return check_data(rows_of(rows), eval_rows, tokenizer, DataSettings(**settings), kind=kind)

    return run


def _with_template(tokenizer: Any, template: str) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


DIRT = [
    pair(),
    pair(),
    pair(chosen="54", rejected="56"),
    pair("Hi", chosen="Hello there!" * 40, rejected="No."),
    pair("Hi" * 300, "a", "b"),
    pair("Empty", " ", "b"),
    pair("Same", "b", "b"),
    pair(" ", "x\ufffd", "y", id=7),
    pair("Bye", "See you", "Go", id=7),
    pair("Boolean", chosen=True),
    {"prompt": "plain", "chosen": "yes", "rejected": "no"},
]


@pytest.mark.parametrize("settings", [{}, {"max_length": 64}, {"max_length": 64, "truncation_mode": "keep_end"}])
def test_the_audit_counts_what_a_run_counts(settings: Any, check: Check, prepare: Callable[..., Any]) -> None:
    expected = prepare(DIRT, on_bad_row="skip", **settings).report
    found = check(DIRT, on_bad_row="skip", **settings).train.report
    assert found.as_dict() == expected.as_dict()
    assert found.counts["empty_completion"] == found.counts["identical_pair"] == found.counts["bad_row"] == 1
    assert found.counts["duplicate_row"] == found.counts["duplicate_id"] == found.counts["blank_prompt"] == 1
    assert found.counts["contradictory_pair"] == 3
    assert (found.counts["completion_cut"] + found.counts["prompt_trimmed"] > 0) == bool(settings)


def test_without_a_tokenizer_lengths_are_characters(check: Check) -> None:
    found = check([pair("four words in here", "yes", "nope"), pair("é🙂", "12345", "1")], None)
    assert found.unit == "characters"
    lengths = found.train.measure.lengths()
    assert (lengths["prompt"].least, lengths["prompt"].most) == (2, 18)
    assert (lengths["chosen"].total, lengths["rejected"].total, lengths["whole row"].most) == (8, 5, 22)
    assert found.train.measure.total_words == 4 + 2 + 1 + 2
    assert found.train.template is None
    assert not found.errors


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_duplicates_contradictions_and_overlap_show_with_and_without_a_tokenizer(
    with_tokenizer: bool, check: Check, chatml: Any
) -> None:
    rows = [pair(), pair(), pair(chosen="54", rejected="56"), pair("Hi", "a", "b")]
    found = check(rows, chatml if with_tokenizer else None, held_out=[pair("Hi", "c", "d"), pair("New", "a", "b")])
    assert found.train.report.counts["duplicate_row"] == 1
    assert found.train.report.counts["contradictory_pair"] == 3
    assert found.train.distinct_prompts == 2
    assert found.evaluation is not None
    assert found.evaluation.report.counts["shared_prompt"] == 1
    assert found.evaluation.report.places["shared_prompt"] == ["held out, row 1"]


def test_turns_with_the_same_words_and_other_roles_are_other_rows(check: Check) -> None:
    calls = [{"type": "function", "function": {"name": name, "arguments": {}}} for name in ("a", "b")]
    chosen, rejected = ([{"role": "assistant", "content": "", "tool_calls": [call]}] for call in calls)
    row = {"prompt": [{"role": "user", "content": "Call it"}], "chosen": chosen, "rejected": rejected}
    other = {**row, "prompt": [{"role": "system", "content": "Call it"}, {"role": "user", "content": ""}]}
    found = check([row, other], None).train.report
    assert found.groups_used == 2
    assert not found.counts["duplicate_row"] + found.counts["identical_pair"]


def test_lengths_are_described_by_hand_counted_figures() -> None:
    found = describe_lengths(np.array([0, 1, 2, 3, 4, 7, 8, 100]))
    assert found is not None
    assert (found.count, found.total, found.least, found.most, found.median) == (8, 125, 0, 100, 3.5)
    bins = [(one.least, one.most, one.count) for one in found.histogram]
    assert bins == [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4, 7, 2), (8, 15, 1), (16, 31, 0), (32, 63, 0), (64, 127, 1)]
    assert describe_lengths(np.zeros(0, np.int64)) is None


def test_length_bias_counts_only_unequal_pairs() -> None:
    found = length_bias(np.array([3, 5, 5, 9]), np.array([1, 5, 6, 1]))
    assert found is not None
    assert (found.better_is_longer, found.better_is_shorter, found.mean_difference) == (2, 1, 9 / 4)
    assert found.share == 2 / 3
    assert length_bias(np.array([2]), np.array([2])).share is None  # pyright: ignore[reportOptionalMemberAccess]


def test_best_and_worst_of_a_list_follow_its_ranking(check: Check) -> None:
    row = {"prompt": "p", "completions": ["aaa", "a", "aaaaa"], "ranking": [1, 0, 2]}
    bias = check([row], None).train.measure.bias()
    assert bias is not None
    assert bias.mean_difference == 1 - 5


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([pair(), pair("b"), {"prompt": "a", "completion": "b"}], "preference"),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, pair()], "sft"),
        ([{"prompt": "a", "completion": "b", "label": True}], "unpaired"),
        ([{"prompt": "a", "completions": ["b", "c"]}], "ranking"),
        ([{"nothing": 1}], "preference"),
    ],
)
def test_the_kind_is_what_most_rows_are(rows: Any, kind: str, check: Check) -> None:
    found = check(rows)
    assert (found.kind, found.guessed) == (kind, True)
    assert check(rows, kind="sft").kind == "sft"


def test_what_would_stop_a_run_is_an_error(check: Check) -> None:
    good, bad = pair(), {"prompt": "a", "chosen": None, "rejected": "b"}
    assert "rejected_rows.jsonl" in check([good, bad]).errors[0]
    assert not check([good, bad], on_bad_row="skip").errors
    assert "strict_data" in check([good, pair("x", "", "b")], strict_data=True).errors[0]
    assert "no row is left" in check([pair("x", "", "b")]).errors[0]
    assert "there are no rows" in check([]).errors[0]
    assert "columns: question" in check([{"question": "a"}]).errors[0]


def test_a_missing_chat_template_is_an_error_and_lengths_are_counted_all_the_same(check: Check, chatml: Any) -> None:
    found = check([pair()], _with_template(chatml, ""))
    assert "--chat_template_path" in found.errors[0]
    assert found.unit == "characters"
    assert found.train.report.groups_used == 1


def test_a_template_that_drops_turns_or_adds_thoughts_is_noted(check: Check, chatml: Any) -> None:
    system = {**pair(), "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
    body = "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
    template = (
        "{% for m in messages %}{% if m.role != 'system' %}" + body + "<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    found = check([system, pair()], _with_template(chatml, template)).train
    assert found.report.counts["turn_changed"] == 1
    assert found.report.counts["thinking_added"] == 2
    assert found.template is not None
    assert found.template.system_turn == "left out"
    assert not check([system, pair()]).train.report.counts["turn_changed"]


def test_a_template_that_refuses_a_role_is_told_with_its_reason(check: Check, chatml: Any) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    template += chatml.chat_template
    system = {**pair(), "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}
    found = check([system, pair()], _with_template(chatml, template)).train
    assert found.report.counts["bad_row"] == 1
    assert found.template is not None
    assert found.template.system_turn == "refused: the chat template refuses it: no system turn"


def test_another_models_template_and_a_missing_end_of_turn_are_warnings(
    check: Check, chatml: Any, headers: Any
) -> None:
    fits = check([pair()])
    assert not fits.train.warnings
    assert fits.train.template is not None
    assert fits.train.template.ends == {"<|im_end|>": 2}
    assert fits.train.template.writes_own_system
    foreign = check([pair()], _with_template(chatml, headers.chat_template)).train
    assert "<|start_header_id|>, <|end_header_id|>, <|eot_id|>" in foreign.warnings[0]
    assert "no end-of-turn token" in foreign.warnings[1]
    elsewhere = copy.deepcopy(chatml)
    elsewhere.eos_token = "<|im_start|>"
    assert "turns end with <|im_end|>" in check([pair()], elsewhere).train.warnings[0]


def test_a_template_that_writes_prompts_otherwise_is_an_error(check: Check, chatml: Any) -> None:
    template = chatml.chat_template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    assert "before a completion than alone" in check([pair()], _with_template(chatml, template)).errors[0]


def test_the_first_row_is_shown_as_the_model_sees_it(check: Check) -> None:
    assert check([pair()]).sample.endswith("<|im_start|>assistant\n56<|im_end|>\n")
    assert " […] " in check([pair("word " * 500)]).sample


def test_all_figures_are_plain_json(check: Check) -> None:
    found = check(DIRT, held_out=[pair()])
    assert json.loads(json.dumps(found.as_dict()))["train"]["counts"]["bad_row"] == 1


def test_unusable_rows_are_counted_by_reason(check: Check) -> None:
    rows = [pair(chosen=n) for n in (1, 2.5, True)] + [{**pair(), "chosen": []}, pair()]
    report = check(rows).train.report
    assert sum(report.alike.values()) == report.counts["bad_row"] == 4
    assert max(report.alike.values()) == 2


def test_pandalm_as_it_is(shared_dir: Path, check: Check) -> None:
    rows = json.loads((shared_dir / "data/pandalm/testset-v1.json").read_text("utf-8"))
    report = check(rows, None).train.report
    assert report.rows_read == 999
    assert report.counts["bad_row"] == sum(
        isinstance(row["response1"], bool) or isinstance(row["response2"], bool) for row in rows
    )
    lost = report.rows_dropped + report.counts["bad_row"]
    assert report.groups_used + lost == 999
