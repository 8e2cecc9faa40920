"""Batches are tokenised on a thread: in order, a few ahead, errors where the batch is taken, and no thread after."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from burnish.data import prepare as prepare_module
from burnish.data.encoders import BATCHES_ON_THREAD, Batch, open_encoder
from burnish.data.examples import Example
from burnish.data.rows import Place, RowError
from burnish.data.tokenise import Encoded, ExampleEncoder


def _example(number: int) -> Example:
    turns = [{"role": "user", "content": f"Question {number}"}]
    answers: list[Any] = [[{"role": "assistant", "content": f"{word} {number}"}] for word in ("Yes", "No")]
    return (
        Example("preference", "test", turns, answers) if number % 3 else Example("text", "test", "", [f"word {number}"])
    )


class Batches:
    """Batches of two examples, counted as they are asked for."""

    def __init__(self, number: int, fails_at: int | None = None) -> None:
        self.number, self.fails_at, self.given = number, fails_at, 0

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.number):
            if number == self.fails_at:
                raise OSError("the file is gone")
            self.given += 1
            examples = [_example(2 * number), _example(2 * number + 1)]
            yield Batch(examples, [Place("here", number)] * 2, num_rows=2)


def _running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tokenise")]


def test_batches_come_in_order_as_they_are_without_a_thread(chatml: Any) -> None:
    batches, plain = Batches(12), ExampleEncoder(chatml)
    with open_encoder(chatml, None) as encode:
        for taken, (batch, encoded) in enumerate(encode(batches)):
            assert batch.places[0].row == taken
            assert encoded == plain.encode(batch.examples)
            assert all(isinstance(one, Encoded) for one in encoded)
            assert batches.given <= taken + 1 + BATCHES_ON_THREAD
    assert batches.given == 12
    assert not _running()


def test_what_goes_wrong_on_the_thread_is_raised_where_the_batch_would_be_taken(
    chatml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenise, threads = ExampleEncoder.tokenise, set()

    def fail_at_the_third(self: ExampleEncoder, examples: Any, rendered: Any) -> list[Encoded | RowError]:
        threads.add(threading.current_thread().name[:8])
        if examples[0].completions == ["word 6"]:
            raise RuntimeError("no more")
        return tokenise(self, examples, rendered)

    monkeypatch.setattr(ExampleEncoder, "tokenise", fail_at_the_third)
    taken: list[Batch] = []
    with pytest.raises(RuntimeError, match="no more"), open_encoder(chatml, None) as encode:
        taken.extend(batch for batch, _ in encode(Batches(9)))
    assert threads == {"tokenise"}
    assert [batch.places[0].row for batch in taken] == [0, 1, 2]
    assert not _running()


def test_what_goes_wrong_in_the_source_or_the_block_ends_the_thread(chatml: Any) -> None:
    with pytest.raises(OSError, match="gone"), open_encoder(chatml, None) as encode:
        list(encode(Batches(9, fails_at=5)))
    assert not _running()
    batches = Batches(1000)
    with pytest.raises(ZeroDivisionError), open_encoder(chatml, None) as encode:
        assert 1 / (next(encode(batches))[0].num_rows - 2)
    assert not _running()
    with open_encoder(chatml, None) as encode:
        next(encode(batches))
    assert not _running()
    assert batches.given < 100


@pytest.mark.parametrize("per_batch", [1, 3, 500])
def test_rows_a_batch_and_the_thread_change_nothing(
    per_batch: int, prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    answer = {"role": "assistant", "content": "Hello"}
    rows: list[Any] = [
        {"prompt": turns, "chosen": [answer | {"content": f"Answer {n}"}], "rejected": [answer]} for n in range(11)
    ]
    rows[4] = {"chosen": 1}
    expected = prepare(rows, on_bad_row="skip").groups.fingerprint
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    monkeypatch.setattr(prepare_module, "ROWS_PER_BATCH", per_batch)
    prepared = prepare(rows, on_bad_row="skip")
    assert not prepared.report.from_cache
    assert prepared.groups.fingerprint == expected
    assert [group.row for group in prepared.groups] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert prepared.report.places["bad_row"] == ["data set, row 5"]


def test_the_garbage_collectors_thresholds_come_back(prepare: Any) -> None:
    before = gc.get_threshold()
    prepare([{"chosen": 1}], on_bad_row="skip")
    assert gc.get_threshold() == before
