"""Arbitrary JSON never crashes: each row becomes groups, a counted drop, or a reason."""

from __future__ import annotations

import gzip
import io
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from burnish.cli.check_tables import print_check
from burnish.data.check.audit import check_data
from burnish.data.formats import recognise
from burnish.data.prepare import prepare_groups
from burnish.data.report import KINDS
from burnish.data.settings import DataSettings
from burnish.data.sources import load_rows, rows_of
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
    {"prompt": USER, "completion": GOOD, "label": 0, "tools": "[]", "chat_template_kwargs": {"x": 1}, "id": 1},
    {"prompt_ids": [1, 2], "completion_ids": [3], "label": True},
    {"text": "a b c"},
    {"messages": USER, "chosen": GOOD[0], "rejected": BAD[0], "system": "s"},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"instruction": "a", "input": "b", "output": "c", "kto_tag": False, "system": "s"},
    {"question": "a", "chosen": "b", "rejected": "c", "system": "s"},
    {"input": "a", "output_1": "b", "output_2": "c", "label": 2},
    {
        "instruction": "a",
        "input": "",
        "response1": "b",
        "response2": "c",
        "annotator1": 1,
        "annotator2": 2,
        "annotator3": 1,
    },
    {"question": "a", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"},
    {"prompt": "a", "completions": ["b", "c", "d"]},
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


QUICK: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
KINDS_OF_GROUPS = st.sampled_from(["preference", "unpaired", "sft", "ranking"])


def test_the_fuzzers_rows_are_of_every_form() -> None:
    forms = [recognise(row).form for row in WELL_FORMED]
    assert len(forms) == len(set(forms)) + 3  # token ids, ShareGPT and ranked lists stand there twice


lines = st.lists(
    st.one_of(damaged(), damaged(), rows, values).map(json.dumps) | st.text(max_size=12), min_size=1, max_size=8
)


@settings(max_examples=250, **QUICK)
@given(lines=lines, kind=KINDS_OF_GROUPS)
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


@settings(max_examples=150, **QUICK)
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


@settings(max_examples=80, **QUICK)
@given(lines=lines, kind=KINDS_OF_GROUPS | st.none(), with_tokenizer=st.booleans(), max_length=st.sampled_from([8, 64]))
def test_the_audit_raises_nothing_and_prints_what_it_found(
    lines: list[str], kind: Any, with_tokenizer: bool, max_length: int, chatml: Any, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    config = DataSettings(dataset_name=str(path), max_length=max_length)
    try:
        rows = load_rows(config)
        check = check_data(rows, rows, chatml if with_tokenizer else None, config, kind=kind)
    except DataError as error:
        assert "UTF-16" in str(error)  # noqa: PT017 (the one fault that a whole file of text can have)
        return
    counts, report = check.train.report.counts, check.train.report
    lost = sum(number for name, number in counts.items() if KINDS[name][0] in ("dropped", "rejected"))
    assert report.rows_read <= report.groups_used + lost
    assert sum(report.alike.values()) == counts["bad_row"]
    assert bool(check.errors) or (report.groups_used and not counts["bad_row"])
    json.dumps(check.as_dict()).encode()
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), width=60)
    print_check(check, console)


TABLE = pa.Table.from_pylist([{"prompt": f"p{n}", "chosen": "a", "rejected": "b", "margin": 0.5} for n in range(20)])


def _table_bytes(name: str) -> bytes:
    sink = io.BytesIO()
    if name == "a.parquet":
        pyarrow.parquet.write_table(TABLE, sink, row_group_size=7)
    else:
        with pa.ipc.new_file(sink, TABLE.schema) as writer:
            writer.write_table(TABLE)
    return sink.getvalue()


def _csv_bytes() -> bytes:
    return b"prompt,chosen,rejected,margin\n" + b"".join(b'"p, %d",a,"b\n",0.5\n' % n for n in range(20))


WHOLE = {
    "a.parquet": _table_bytes("a.parquet"),
    "a.arrow": _table_bytes("a.arrow"),
    "a.csv": _csv_bytes(),
    "a.csv.gz": gzip.compress(_csv_bytes(), mtime=0),
    "a.json.gz": gzip.compress(json.dumps(TABLE.to_pylist()).encode(), mtime=0),
}


@settings(max_examples=200, **QUICK)
@given(
    name=st.sampled_from(sorted(WHOLE)),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_damaged_tables_are_rows_reasons_or_one_error(
    name: str, edits: list[tuple[float, int]], kept: float, chatml: Any, tmp_path: Path
) -> None:
    content = bytearray(WHOLE[name])
    for place, value in edits:
        content[int(place * len(content))] = value
    path = tmp_path / name
    path.write_bytes(bytes(content) if kept > 0.5 else bytes(content[: int(2 * kept * len(content))]))
    config = DataSettings(dataset_name=str(path), on_bad_row="skip")
    try:
        prepared = prepare_groups(load_rows(config), chatml, config, cache_dir=tmp_path / "cache")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is right)
        return
    report = prepared.report
    assert report.rows_read == report.groups_used + report.rows_dropped + report.counts["bad_row"]


things = st.recursive(
    scalars | speech | turns | st.binary(max_size=4) | st.dates() | st.integers() | st.tuples(st.integers()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, **QUICK)
@given(
    listed=st.lists(st.dictionaries(COLUMN | st.text(max_size=3) | st.integers(), things, max_size=4) | damaged()),
    kind=KINDS_OF_GROUPS,
)
def test_rows_in_memory_may_hold_anything(listed: list[Any], kind: Any, chatml: Any, tmp_path: Path) -> None:
    rejected = tmp_path / "rejected.jsonl"
    options: dict[str, Any] = {"kind": kind, "cache_dir": tmp_path / "cache", "rejected_path": rejected}
    try:
        report = prepare_groups(rows_of(listed), chatml, DataSettings(on_bad_row="skip"), **options).report
    except DataError as error:
        assert "data set" in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert report.rows_read == len(listed)
    assert not listed or report.groups_used + report.rows_dropped + report.counts["bad_row"] >= len(listed)


PIECES = st.sampled_from(
    [
        *(
            "{{ m.content }}",
            "{{ m['role'] }}",
            "{{ messages }}",
            "{% for m in messages %}",
            "{% endfor %}",
            "{{ 1/0 }}",
        ),
        *("{% if add_generation_prompt %}", "{% endif %}", "{{ x.y.z }}", "{{ raise_exception('no') }}", "{{", "%}"),
        *("<|im_start|>", "<|im_end|>\n", "<think>", "{{ messages[9].content }}", "{% set m = messages[0] %}", "é"),
        *("{{ messages|tojson }}", "{{ tools|length }}", "{{ m.content|trim|upper }}", "{% include 'x' %}"),
        *("{{ 1/0 }}", "{{ ''.__class__ }}", "{{ 9**9**3 }}"),
    ]
)


@settings(max_examples=80, **QUICK)
@given(pieces=st.lists(PIECES, max_size=8))
def test_any_template_gives_texts_reasons_or_one_error(pieces: list[str], chatml: Any, tmp_path: Path) -> None:
    tokenizer = deepcopy(chatml)
    tokenizer.chat_template = "".join(pieces)
    listed = [row for row in WELL_FORMED if "prompt_ids" not in row]
    config = DataSettings(on_bad_row="skip")
    try:
        check = check_data(rows_of(listed), None, tokenizer, config, kind="preference")
        report = prepare_groups(rows_of(listed), tokenizer, config, cache_dir=tmp_path / "cache").report
    except DataError as error:
        assert "template" in str(error) or "data set" in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert check.unit == "tokens"
    assert report.rows_read == len(listed) == check.train.report.rows_read
