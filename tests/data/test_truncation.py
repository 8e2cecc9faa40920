"""What is cut to max_length, and what is dropped because nothing is left to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data.examples import Example
from burnish.data.rows import DroppedRow
from burnish.data.tokenise import Encoded
from burnish.data.truncate import Mode, fit
from burnish.errors import DataError
from row_builders import pair

Prepare = Callable[..., Any]
IDS = {"prompt_ids": [1, 2, 3, 4], "chosen_ids": [5, 6, 7, 8, 9], "rejected_ids": [10, 11]}


def _ids(prepared: Any) -> tuple[list[int], list[int], list[int]]:
    group = prepared.groups[0]
    return (group.prompt_ids.tolist(), *(ids.tolist() for ids in group.completion_ids))  # pyright: ignore[reportReturnType]


def test_keep_start_cuts_the_ends_of_completions(prepare: Prepare) -> None:
    prepared = prepare([IDS], max_length=6)
    assert _ids(prepared) == ([1, 2, 3, 4], [5, 6], [10, 11])
    assert prepared.report.counts["completion_cut"] == 1


def test_keep_end_trims_the_prompt_by_the_same_for_both(prepare: Prepare) -> None:
    prepared = prepare([IDS], max_length=6, truncation_mode="keep_end")
    assert _ids(prepared) == ([4], [5, 6, 7, 8, 9], [10, 11])
    assert prepared.report.counts["prompt_trimmed"] == 1


@pytest.mark.parametrize(
    ("limits", "left", "counts"),
    [
        ({"max_prompt_length": 3}, ([2, 3, 4], [5, 6, 7, 8, 9], [10, 11]), {"prompt_trimmed": 1}),
        ({"max_completion_length": 3}, ([1, 2, 3, 4], [5, 6, 7], [10, 11]), {"completion_cut": 1}),
        (
            {"max_prompt_length": 2, "max_completion_length": 4, "max_length": 5},
            ([3, 4], [5, 6, 7], [10, 11]),
            {"prompt_trimmed": 1, "completion_cut": 1},
        ),
        ({"max_prompt_length": 4, "max_completion_length": 5}, ([1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]), {}),
    ],
)
def test_a_prompt_keeps_its_last_tokens_and_a_completion_its_first(
    limits: dict[str, int], left: tuple[list[int], ...], counts: dict[str, int], prepare: Prepare
) -> None:
    prepared = prepare([IDS], **limits)
    assert _ids(prepared) == left
    assert dict(prepared.report.counts) == counts


def test_parts_that_are_too_long_are_dropped_where_that_is_asked_for(prepare: Prepare) -> None:
    short = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    for limits in ({"max_prompt_length": 3}, {"max_completion_length": 3}):
        prepared = prepare([IDS, short], truncation_mode="drop", **limits)
        assert dict(prepared.report.counts) == {"too_long": 1}
        assert len(prepared.groups) == 1


def test_what_fits_exactly_is_left_alone(prepare: Prepare) -> None:
    for mode in ("keep_start", "keep_end", "drop"):
        prepared = prepare([IDS], max_length=9, truncation_mode=mode)
        assert _ids(prepared) == ([1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11])
        assert not prepared.report.counts


DROPS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (IDS, {"max_length": 4}, "overlong_prompt"),
    (IDS, {"max_length": 5, "truncation_mode": "keep_end"}, "overlong_completion"),
    (IDS, {"max_length": 8, "truncation_mode": "drop"}, "too_long"),
    ({**IDS, "rejected_ids": [5, 6, 9]}, {"max_length": 6}, "identical_pair"),
    ({**IDS, "rejected_ids": []}, {}, "empty_completion"),
    ({**IDS, "prompt_ids": []}, {}, "empty_prompt"),
    (pair(rejected=""), {}, "empty_completion"),
    (pair(chosen=" \n\t"), {}, "empty_completion"),
    (pair(chosen="54"), {}, "identical_pair"),
    ({"prompt": "a", "chosen": " ", "rejected": "b"}, {}, "empty_completion"),
    ({"prompt": "a", "chosen": "b", "rejected": "b"}, {}, "identical_pair"),
]


@pytest.mark.parametrize(("row", "options", "kind"), DROPS)
def test_a_row_with_nothing_to_learn_from_is_dropped_and_told(
    row: dict[str, Any], options: dict[str, Any], kind: str, prepare: Prepare
) -> None:
    good = {**IDS, "chosen_ids": [5], "rejected_ids": [6], "prompt_ids": [1]}
    prepared = prepare([good, row], **options)
    assert len(prepared.groups) == 1
    assert dict(prepared.report.counts) == {kind: 1}
    assert prepared.report.places[kind] == ["data set, row 2"]
    assert "dropped 1 " in prepared.report.one_line()


@pytest.mark.parametrize(("row", "options", "kind"), DROPS)
def test_strict_data_makes_drops_errors(
    row: dict[str, Any], options: dict[str, Any], kind: str, prepare: Prepare
) -> None:
    with pytest.raises(DataError, match=r"data set, row 1: .*\n1 more such row \(without --strict_data"):
        prepare([row, row], strict_data=True, **options)


def test_a_prompt_of_nothing_lends_the_first_token_of_equal_beginnings(prepare: Prepare) -> None:
    prepared = prepare([{"prompt_ids": [], "chosen_ids": [7, 8], "rejected_ids": [7, 9]}])
    assert _ids(prepared) == ([7], [8], [9])


ids = st.lists(st.integers(0, 3), max_size=12)


@settings(max_examples=300, deadline=None)
@given(ids, ids, ids, st.one_of(st.none(), st.integers(2, 20)), st.sampled_from(["keep_start", "keep_end", "drop"]))
def test_what_fits_is_never_too_long_and_never_empty(
    prompt: list[int], chosen: list[int], rejected: list[int], max_length: int | None, mode: Mode
) -> None:
    whole = Encoded(list(prompt), [list(chosen), list(rejected)], [None, None])
    try:
        fitting = fit(whole, max_length, mode)
    except DroppedRow:
        return
    assert fitting.prompt_ids
    for before, after in zip((chosen, rejected), fitting.completion_ids, strict=True):
        assert after
        assert max_length is None or len(fitting.prompt_ids) + len(after) <= max_length
        joined, original = fitting.prompt_ids + after, prompt + before
        kept = original[: len(joined)] if mode == "keep_start" else original[-len(joined) :]
        assert joined == kept


def test_a_changed_example_has_words_of_its_own() -> None:
    example = Example("preference", "test", [{"role": "user", "content": "Hi"}], ["Yes", [1, 2]])
    assert example.words == ("Hi", "Yes", "ids")
    changed = replace(example, prompt="Ho", completions=["No"])
    assert changed.words == ("Ho", "No")
    assert changed == replace(example, prompt="Ho", completions=["No"])
