"""The reference from the cache is the reference itself, to the last bit, in every precision; and then it is let go."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import build_groups, build_model
from burnish import DPOConfig, DPOTrainer
from burnish.batching.layout import lay_out
from burnish.data.groups import PromptGroup
from burnish.models.cached_reference import CachedReference
from burnish.models.logp_store import LogpStore
from burnish.models.reference import FrozenReference
from burnish.scoring import compute_copies
from burnish.scoring.scorer import Scorer
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


@pytest.mark.parametrize("piecewise", [False, True])
@pytest.mark.parametrize("is_on_host", [False, True])
def test_groups_of_which_half_is_known_are_answered_token_by_token(is_on_host: bool, piecewise: bool) -> None:
    live = FrozenReference(Scorer(build_model("qwen2")))
    reference = CachedReference(live, LogpStore(None), starts_as_policy=True)
    groups = build_groups(5, count=5)
    lay = partial(lay_out, shared=True, pad_id=0)
    halves = [_half(group, number % 2) for number, group in enumerate(groups[:-1])]
    reference.score(lay(halves), halves, lay)
    if is_on_host:
        reference.flush()
    computed = []
    live.scorer.register_forward_pre_hook(lambda _, args: computed.append(args[0].num_completions))
    got = reference.score(lay(groups), groups, lay, piecewise=piecewise).token_logps
    assert computed == [6 if piecewise else 10]
    torch.testing.assert_close(got, live.score(lay(groups)).token_logps, rtol=0, atol=1e-5)


def _half(group: PromptGroup, number: int) -> PromptGroup:
    kept = slice(number, number + 1)
    return replace(group, completion_ids=group.completion_ids[kept], completion_mask=group.completion_mask[kept])


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
