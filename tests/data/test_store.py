"""Groups come back from disk as they were written, and lengths are known without reading ids."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.data import store
from burnish.data.groups import PromptGroup
from burnish.data.store import GroupStore, GroupWriter

token_ids = st.lists(st.integers(0, 2**31 - 1), max_size=6).map(lambda ids: np.array(ids, np.int32))


@st.composite
def groups(draw: st.DrawFn) -> PromptGroup:
    completions = draw(st.lists(token_ids, max_size=4))
    masks = [np.array(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))), bool) for ids in completions]
    return PromptGroup(
        prompt_ids=draw(token_ids),
        completion_ids=tuple(completions),
        completion_mask=tuple(masks),
        weight=draw(st.floats(0, 10)),
        margin=draw(st.none() | st.floats(-5, 5)),
        label=draw(st.none() | st.booleans()),
        label_smoothing=draw(st.none() | st.floats(0, 0.4)),
        ref_logps=draw(st.none() | st.just(tuple(-0.5 * n for n in range(len(completions))))),
        token_weights=draw(
            st.none() | st.just(tuple(np.linspace(0, 1, len(ids), dtype=np.float32) for ids in completions))
        ),
        ranking=draw(st.none() | st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple)),
        source=draw(st.sampled_from(["a.jsonl", "数据"])),
        row=draw(st.integers(0, 2**40)),
        number=draw(st.integers(0, 2**40)),
    )


def _plain(group: PromptGroup) -> tuple[object, ...]:
    arrays = (group.prompt_ids, *group.completion_ids, *group.completion_mask)
    rest = (group.weight, group.margin, group.label, group.ranking, group.source, group.row, group.number)
    weights = None if group.token_weights is None else [array.tolist() for array in group.token_weights]
    return (*(array.tolist() for array in arrays), *rest, group.label_smoothing, group.ref_logps, weights)


@settings(max_examples=40, deadline=None)
@given(listed=st.lists(groups(), max_size=9), per_batch=st.integers(1, 4))
def test_groups_and_lengths_survive_the_disk(
    listed: list[PromptGroup], per_batch: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("store") / "groups.arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "GROUPS_PER_BATCH", per_batch)
        stored = GroupStore.from_groups(listed, path)
        assert GroupStore.open(path).fingerprint == stored.fingerprint  # hashed again, and while it was written
    assert [_plain(group) for group in stored] == [_plain(group) for group in listed]
    assert [_plain(stored[n]) for n in range(-len(listed), 0)] == [_plain(group) for group in listed]
    assert stored.prompt_lengths.tolist() == [len(group.prompt_ids) for group in listed]
    assert stored.tree_lengths.tolist() == [group.num_tree_tokens for group in listed]
    assert stored.num_tokens.tolist() == [group.num_tokens for group in listed]
    assert stored.num_counted.tolist() == [group.num_counted_tokens for group in listed]
    assert stored.completion_lengths.tolist() == [len(ids) for group in listed for ids in group.completion_ids]
    assert stored.max_completions == max((group.num_completions for group in listed), default=0)
    assert stored.labels.tolist() == [group.label is True for group in listed]
    assert stored.total_weight == pytest.approx(sum(group.weight for group in listed))
    assert stored.is_weighted == any(group.weight != 1 for group in listed)
    assert stored.has_margin == any(group.margin is not None for group in listed)
    assert stored.fingerprint == GroupStore.from_groups(listed).fingerprint


def _group(**changes: object) -> PromptGroup:
    ids = np.array([1, 2], np.int32)
    fields: dict[str, object] = {
        "prompt_ids": ids,
        "completion_ids": (ids, ids),
        "completion_mask": (np.array([True, False]), np.array([True, True])),
    }
    return PromptGroup(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


def test_the_fingerprint_is_known_without_reading_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing a mapped file would make every page of it resident."""
    listed = [_group(row=n, weight=float(n)) for n in range(5)]
    expected = GroupStore.from_groups(listed).fingerprint
    monkeypatch.setattr(GroupStore, "_hash", None)
    assert GroupStore.from_groups(listed, tmp_path / "groups.arrow").fingerprint == expected


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": np.array([1, 3], np.int32)},
        {"completion_mask": (np.array([True, True]), np.array([True, True]))},
        {"weight": 2.0},
        {"margin": 0.0},
        {"label": True},
        {"label_smoothing": 0.1},
        {"ref_logps": (-1.0, -2.0)},
        {"token_weights": (np.ones(2, np.float32), np.ones(2, np.float32))},
        {"ranking": (1, 0)},
    ],
)
def test_the_fingerprint_sees_every_change_of_content(change: dict[str, object]) -> None:
    plain = GroupStore.from_groups([_group(), _group()]).fingerprint
    assert GroupStore.from_groups([_group(), _group(**change)]).fingerprint != plain
    assert GroupStore.from_groups([_group(), _group(source="elsewhere", row=9, number=4)]).fingerprint == plain


def test_groups_can_be_written_to_and_outlive_their_store(tmp_path: Path) -> None:
    stored = GroupStore.from_groups([_group()], tmp_path / "groups.arrow")
    group = stored[0]
    del stored
    group.prompt_ids[0] = 7
    assert group.prompt_ids.tolist() == [7, 2]


def test_positions_outside_are_refused_and_slices_given() -> None:
    stored = GroupStore.from_groups([_group(row=n) for n in range(5)])
    assert [group.row for group in stored[1:4:2]] == [1, 3]
    for index in (5, -6):
        with pytest.raises(IndexError):
            stored[index]


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with GroupWriter(tmp_path / "groups.arrow") as writer:
            writer.add(_group())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.arrow"
    GroupStore.from_groups([_group()] * 3, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(pa.ArrowInvalid):
        GroupStore.open(path)


def test_a_store_travels_to_another_process(tmp_path: Path) -> None:
    stored = GroupStore.from_groups([_group(row=n) for n in range(3)], tmp_path / "groups.arrow")
    assert [group.row for group in pickle.loads(pickle.dumps(stored))] == [0, 1, 2]
