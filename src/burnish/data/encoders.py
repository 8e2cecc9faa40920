"""Where batches of examples are rendered and tokenised: on a thread of this process, or in several beside it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING

from burnish.data.examples import Example
from burnish.data.rows import Place, RowError
from burnish.data.settings import TokenizerBackend
from burnish.data.tokenise import Encoded, ExampleEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCHES_AHEAD = 2
"""Batches that wait for each worker process; bounds the memory."""
BATCHES_ON_THREAD = 8
"""Batches that wait for the thread, or for whoever takes them from it: the first do while fastokens is made ready."""


@dataclass(slots=True)
class Batch:
    """Recognised examples of some rows that follow each other."""

    examples: list[Example] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Each example's place among all of its set, from 0; those of rows that gave none are left out."""
    num_rows: int = 0
    """Rows read for this batch, those without an example included."""


EncodedBatch = tuple[Batch, list[Encoded | RowError]]
Encode = Callable[[Iterable[Batch]], Iterator[EncodedBatch]]


Encoding = Future[list[Encoded | RowError]]


@contextmanager
def open_encoder(
    tokenizer: PreTrainedTokenizerBase, num_processes: int | None, backend: TokenizerBackend = "huggingface"
) -> Iterator[Encode]:
    """Yield the function that encodes batches, in order, a few of them ahead of the one that is taken.

    Tokenizers work without Python's lock, so that rows are read, recognised, rendered and written meanwhile. What goes
    wrong on the thread or in a process is raised where the batch would be taken; both end with the block.

    Args:
        tokenizer: the fast tokenizer.
        num_processes: worker processes, of one thread each; None or 1 renders here and tokenises on a thread,
            beside the tokenizer's own threads.
        backend: what tokenises; see DataSettings.

    The function raises FastTokensDiffer where fastokens gives other ids than the tokenizer.
    """
    if num_processes is None or num_processes == 1:
        thread = ThreadPoolExecutor(1, "tokenise")
        encoder = ExampleEncoder(tokenizer, backend)

        def submit(examples: list[Example]) -> Encoding:
            return thread.submit(encoder.tokenise, examples, encoder.render(examples))

        with _ended(thread):
            yield lambda batches: _encode_beside(submit, batches, BATCHES_ON_THREAD)
        return
    pool = ProcessPoolExecutor(num_processes, get_context("spawn"), _start_worker, (tokenizer, backend))
    with _ended(pool):
        yield lambda batches: _encode_beside(
            lambda examples: pool.submit(_encode_in_worker, examples), batches, num_processes * BATCHES_AHEAD
        )


@contextmanager
def _ended(executor: Executor) -> Iterator[None]:
    """Wait for what runs when the block ends, however it does, and begin nothing more."""
    try:
        yield
    finally:
        executor.shutdown(cancel_futures=True)


def _encode_beside(
    submit: Callable[[list[Example]], Encoding], batches: Iterable[Batch], ahead: int
) -> Iterator[EncodedBatch]:
    waiting: deque[tuple[Batch, Encoding]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch.examples)))
        if len(waiting) > ahead:
            oldest, result = waiting.popleft()
            yield oldest, result.result()
    while waiting:
        oldest, result = waiting.popleft()
        yield oldest, result.result()


class _Worker:
    encoder: ExampleEncoder


def _start_worker(tokenizer: PreTrainedTokenizerBase, backend: TokenizerBackend) -> None:
    os.environ["RAYON_NUM_THREADS"] = "1"  # the processes are the parallelism
    _Worker.encoder = ExampleEncoder(tokenizer, backend)


def _encode_in_worker(examples: list[Example]) -> list[Encoded | RowError]:
    return _Worker.encoder.encode(examples)
