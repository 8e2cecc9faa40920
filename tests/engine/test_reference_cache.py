"""The reference from the cache is the reference itself, to the last bit, in every precision; and then it is let go."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from burnish import DPOConfig, DPOTrainer
from burnish.scoring import compute_copies
from jobs import POLICY, job, write_pairs
from runs import read_metrics, run_burnish

TIMES = ("_runtime", "_per_second", "_seconds")


def _records(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if not k.endswith(TIMES)} for record in read_metrics(run)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("extra", [[], ["--use_peft", "--lora_r", 4]], ids=["full", "lora"])
def test_a_cached_run_is_bit_for_bit_the_run_that_filled_the_cache(
    precision: str, extra: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = ["--precision", precision, "--max_tokens_per_micro_batch", 64, *extra]
    words += ["--eval_dataset_name", write_pairs(tmp_path / "held-out.jsonl", seed=1, count=8), "--eval_steps", 3]
    words += ["--reference_cache", "disk", "--reference_cache_dir", tmp_path / "cache"]
    run_burnish(*job(data, tmp_path / "live", *words))
    assert "from the cache" not in capsys.readouterr().err
    run_burnish(*job(data, tmp_path / "cached", *words))
    assert "the policy's start, from the cache" in capsys.readouterr().err  # no reference model at all
    assert _records(tmp_path / "live") == _records(tmp_path / "cached")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_model_is_let_go_once_every_group_is_cached(precision: Any, tmp_path: Path) -> None:
    config = DPOConfig(
        model_name_or_path=str(POLICY), dataset_name=str(write_pairs(tmp_path / "rows.jsonl", count=24)),
        output_dir=str(tmp_path / "run"), global_batch_size=8, save_strategy="no", num_samples=0, num_threads=1,
        eval_dataset_name=str(write_pairs(tmp_path / "held-out.jsonl", seed=1, count=8)), eval_strategy="steps",
        eval_steps=4, reference_cache="memory", device="cpu", precision=precision, num_train_epochs=4,
    )  # fmt: skip
    trainer = DPOTrainer(args=config)
    loop, reference = trainer.loop, trainer.loop.passes.reference
    assert reference is not None
    live: Any = reference.live
    weight = weakref.ref(next(live.scorer.parameters()))
    del live
    loaded = []
    for _ in range(8):
        loop._one_step()
        gc.collect()
        loaded.append((reference.live is not None, weight() is not None))
    assert loaded == [(True, True)] * 3 + [(False, False)] * 5  # epochs of 3 steps, an evaluation after step 4
    kept = len(compute_copies._COPIES)
    assert kept <= sum(1 for _ in trainer.model.parameters())  # none of the reference's
    trainer.close()
