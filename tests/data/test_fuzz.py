"""Arbitrary JSON never crashes: each row becomes groups, a counted drop, or a reason."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burnish.data.prepare import prepare_groups
from burnish.data.report import KINDS
from burnish.data.settings import DataSettings
from burnish.data.sources import load_rows
from burnish.errors import DataError

COLUMNS = """prompt chosen rejected completion completions ranking label messages text prompt_ids chosen_ids
rejected_ids conversations system tools instruction input output history question weight margin images output_1 output_2
chat_template_kwargs response1 response2 annotator1 answer_matching_behavior answer_not_matching_behavior"""
COLUMN = st.sampled_from(re.findall(r"\w+", COLUMNS))

scalars = st.none() | st.booleans() | st.integers(-3, 700) | st.floats() | st.text(max_size=8)
speech = st.sampled_from(["", " ", "Hi", "\n\nHuman: a\n\nAssistant: b", "é🙂", "\x00", "\ud800", "<|im_end|>"])
roles = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "robot", None, 7])
turns = st.fixed_dictionaries({}, optional={"role": roles, "content": speech | scalars, "from": roles, "value": speech})
values = st.recursive(
    scalars | speech | turns,
    lambda inner: st.lists(inner | turns, max_size=4) | st.dictionaries(COLUMN, inner, max_size=3),
    max_leaves=8,
)
rows = st.dictionaries(COLUMN, values, max_size=6)
USER, GOOD, BAD = ([{"role": role, "content": "Hi"}] for role in ("user", "assistant", "tool"))
WELL_FORMED: list[dict[str, Any]] = [
    {"prompt": USER, "chosen": GOOD, "rejected": [*BAD, *GOOD]},
    {"prompt": "a", "chosen": " b", "rejected": " c"},
    {"chosen": USER + GOOD, "rejected": USER + BAD + GOOD, "weight": 1.0, "margin": 0.5},
    {"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]},
    {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": GOOD[0]},
    {"instruction": "a", "input": "b", "output": ["c", "d"], "history": [["e", "f"]]},
    {"prompt": USER, "completions": [GOOD, BAD + GOOD], "ranking": [1, 0]},
    {"messages": USER + GOOD + USER + GOOD, "label": True},
    {"prompt": "a", "completion": "b"},
]


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A well-formed row with one value, somewhere in its depths, replaced, repeated or taken away."""
    row: Any = deepcopy(draw(st.sampled_from(WELL_FORMED)))
    at = row
    while True:
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
            break
        at = at[key]
    change = draw(st.sampled_from(["replace", "remove", "repeat", "none"]))
    if change == "replace":
        at[key] = draw(values)
    elif change == "remove":
        del at[key]
    elif change == "repeat":
        at[key] = [at[key], at[key]]
    return row


lines = st.lists(
    st.one_of(damaged(), damaged(), rows, values).map(json.dumps) | st.text(max_size=12), min_size=1, max_size=8
)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(lines=lines, kind=st.sampled_from(["preference", "unpaired", "sft", "ranking"]))
def test_arbitrary_lines_are_all_accounted_for(lines: list[str], kind: Any, chatml: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    config = DataSettings(dataset_name=str(path), on_bad_row="skip", max_length=64)
    try:
        prepared = prepare_groups(load_rows(config), chatml, config, kind=kind, cache_dir=tmp_path / "cache")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is right)
        return
    report = prepared.report
    lost = sum(number for name, number in report.counts.items() if KINDS[name][0] in ("dropped", "rejected"))
    kept = {group.row for group in prepared.groups}
    assert report.rows_read <= len(kept) + lost
    assert report.rows_read == sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
    for group in prepared.groups:
        assert len(group.prompt_ids) > 0
        assert all(len(group.prompt_ids) + len(ids) <= 64 for ids in group.completion_ids)
        assert all(mask.any() for mask in group.completion_mask)


json_like = st.text(alphabet='[]{},:"ab1 \n\\', max_size=60)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(content=st.binary(max_size=80) | json_like.map(str.encode), name=st.sampled_from(["a.json", "a.jsonl", "a.csv"]))
def test_arbitrary_bytes_are_read_to_the_end(content: bytes, name: str, chatml: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    config = DataSettings(dataset_name=str(path), on_bad_row="skip")
    try:
        prepared = prepare_groups(load_rows(config), chatml, config, cache_dir=tmp_path / "cache")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert prepared.report.rows_read == prepared.report.counts["bad_row"] + len(prepared.groups)
