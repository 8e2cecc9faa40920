"""Where batches of examples are rendered and tokenised: in this process, or in several beside it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
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
"""Batches that wait for each worker; bounds the memory."""


@dataclass(slots=True)
class Batch:
    """Recognised examples of some rows that follow each other."""

    examples: list[Example] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    num_rows: int = 0
    """Rows read for this batch, those without an example included."""


EncodedBatch = tuple[Batch, list[Encoded | RowError]]
Encode = Callable[[Iterable[Batch]], Iterator[EncodedBatch]]


@contextmanager
def open_encoder(
    tokenizer: PreTrainedTokenizerBase, num_processes: int | None, backend: TokenizerBackend = "huggingface"
) -> Iterator[Encode]:
    """Yield the function that encodes batches, in order.

    Args:
        tokenizer: the fast tokenizer.
        num_processes: worker processes, of one thread each; None or 1 works here, on the tokenizer's own threads.
        backend: what tokenises; see DataSettings.

    The function raises FastTokensDiffer where fastokens gives other ids than the tokenizer.
    """
    if num_processes is None or num_processes == 1:
        encoder = ExampleEncoder(tokenizer, backend)
        yield lambda batches: ((batch, encoder.encode(batch.examples)) for batch in batches)
        return
    context = get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, context, _start_worker, (tokenizer, backend))
    try:
        yield lambda batches: _encode_beside(pool, batches, num_processes * BATCHES_AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_beside(pool: ProcessPoolExecutor, batches: Iterable[Batch], ahead: int) -> Iterator[EncodedBatch]:
    waiting: deque[tuple[Batch, Future[list[Encoded | RowError]]]] = deque()
    for batch in batches:
        waiting.append((batch, pool.submit(_encode_in_worker, batch.examples)))
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
