"""Memory that really runs out: a limit on the process's address space, and what Python and torch then say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from burnish.device.memory import is_out_of_memory
from faults.harness import Job, records, state
from faults.test_memory import SAME_UPDATE, movement_ratio

LONG = 220
"""Characters of a completion; a token each."""


def write_long_pairs(path: Path, count: int = 128) -> Path:
    turn = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    rows = [
        {
            "prompt": turn("user", f"row {number}"),
            "chosen": turn("assistant", "ab" * (LONG // 2) + str(number)),
            "rejected": turn("assistant", "cd" * (LONG // 2) + str(number)),
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow  # about 15 s: two runs of a large step
def test_an_address_space_that_is_used_up_makes_the_step_start_over_in_smaller_micro_batches(tiny: Job) -> None:
    data = write_long_pairs(tiny.folder / "long.jsonl")
    words = (
        *("--dataset_name", data, "--max_steps", 1, "--global_batch_size", 128, "--save_steps", 1),
        *(
            "--disable_dropout",
            "true",
            "--max_tokens_per_micro_batch",
            200_000,
            "--num_threads",
            1,
            "--learning_rate",
            1e-5,
        ),
    )
    tiny.run("golden", *words)
    limit = {"name": "limit_address_space", "step": 1, "more_bytes": 220 << 20}
    ended = tiny.run("run", *words, faults=(limit,))
    told = [record for record in records(tiny.path("run")) if record["kind"] == "memory"]
    assert "step 1: out of memory" in ended.err
    assert told
    assert told[-1]["max_tokens_per_micro_batch"] < 200_000
    assert state(tiny.path("run"))["status"] == "done"
    assert movement_ratio(tiny, tiny.path("run"), tiny.path("golden"), step=1) < SAME_UPDATE


@pytest.mark.parametrize("ask", [lambda: torch.empty(2**50), lambda: bytearray(2**62)], ids=["torch", "Python"])
def test_what_torch_and_python_say_when_nothing_is_left_is_recognised(ask: object) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        ask()  # pyright: ignore[reportCallIssue]
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "std::bad_alloc",
        "could not create a primitive",
        "CUDA out of memory. Tried to allocate 2 GiB",
        "NPU out of memory. Tried to allocate 1 GiB",
    ],
)
def test_other_allocators_words_are_recognised_too(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for a matmul primitive"),
        ValueError("out of memory of the last step"),
        KeyError("memory"),
    ],
)
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
