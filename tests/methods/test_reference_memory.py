"""The reference model is let go as soon as nothing asks for it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from burnish.models.cached_reference import CachedReference
from jobs import job, write_pairs
from runs import run_burnish


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to the models that were let go, once no garbage is collected but by the run itself."""
    models: list[Any] = []
    unload = CachedReference.unload

    def note(self: Any) -> None:
        models.append(weakref.ref(self.live.scorer.model))
        unload(self)
        assert models[-1]() is None, "somebody still holds the reference model"

    monkeypatch.setattr(CachedReference, "unload", note)
    return models


@pytest.mark.parametrize(("words", "times"), [(("--max_steps", 7), 1), (("--max_steps", 5), 0)], ids=str)
def test_it_goes_after_the_epoch_and_the_evaluation_that_know_all_groups(
    tmp_path: Path, left: list[Any], words: tuple[Any, ...], times: int
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=24)
    held_out = write_pairs(tmp_path / "held-out.jsonl", seed=1, count=4)
    gc.disable()
    try:
        run_burnish(*job(data, tmp_path / "run", "--eval_dataset_name", held_out, "--eval_steps", 6, *words))
    finally:
        gc.enable()
    assert len(left) == times
