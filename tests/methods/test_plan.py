"""The plan says whether activations are kept, and whether there is room for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import job, write_pairs
from runs import run_burnish


@pytest.mark.parametrize(
    ("words", "room", "told"),
    [
        ((), 2**34, "kept: the estimate below is within the 16.00 GiB"),
        ((), 2**10, "above the 0.0 MiB of the device: add --gradient_checkpointing"),
        (("--gradient_checkpointing",), 2**10, "recomputed in the backward pass (--gradient_checkpointing)"),
    ],
    ids=["fits", "does not fit", "recomputed"],
)
def test_the_plan_says_what_happens_to_activations_and_why(
    words: tuple[str, ...],
    room: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("burnish.methods.describe.total_memory_bytes", lambda _: room)
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--dry_run", *words))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  activations")]
    assert told in line
