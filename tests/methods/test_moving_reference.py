"""TR-DPO: the reference follows the policy, no cache answers for where it was, and a checkpoint holds where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs import POLICY, job, model_tensors, stage_job, write_pairs
from runs import read_metrics, run_burnish

SYNC = ["--sync_ref_model", "--ref_model_sync_steps", 2]


def _rewards(run: Path) -> list[float]:
    return [record["rewards/chosen"] for record in read_metrics(run) if record["kind"] == "train"]


@pytest.mark.parametrize("extra", [[], ["--use_peft", "--lora_r", 4]], ids=["full", "lora"])
def test_a_hard_copy_brings_every_reward_back_to_zero(extra: list[Any], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = [*SYNC, "--ref_model_mixup_alpha", 1, "--max_steps", 5, *extra]
    run_burnish(*job(data, tmp_path / "run", *words))
    rewards = _rewards(tmp_path / "run")
    assert [abs(reward) < 1e-6 for reward in rewards] == [True, False, True, False, True]


def test_kto_moves_its_reference_too(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*stage_job("kto", data, tmp_path / "run", *SYNC, "--ref_model_mixup_alpha", 1, "--max_steps", 3))
    assert [abs(reward) < 1e-6 for reward in _rewards(tmp_path / "run")] == [True, False, True]


def test_the_second_epoch_asks_the_moved_reference_and_not_the_cache(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    still, moving = tmp_path / "still", tmp_path / "moving"
    cache = ["--reference_cache", "disk", "--reference_cache_dir", tmp_path / "cache", "--max_steps", 4]
    run_burnish(*job(data, still, *cache))
    run_burnish(*job(data, moving, *cache, *SYNC, "--ref_model_mixup_alpha", 1))
    assert _rewards(still)[:2] == _rewards(moving)[:2]
    assert _rewards(moving)[2] == pytest.approx(0, abs=1e-6)
    assert _rewards(still)[2] != pytest.approx(0, abs=1e-6)
    run_burnish(*job(data, tmp_path / "again", *cache))
    assert _rewards(tmp_path / "again") == pytest.approx(_rewards(still), abs=1e-5)


def test_a_soft_update_mixes_weights_by_alpha(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = [*SYNC, "--ref_model_mixup_alpha", 0.25, "--save_strategy", "steps", "--save_steps", 2, "--max_steps", 2]
    run_burnish(*job(data, tmp_path / "run", *words))
    start, policy = load_file(POLICY / "model.safetensors"), model_tensors(tmp_path / "run")
    reference = load_file(tmp_path / "run" / "checkpoints" / "step-2" / "reference.safetensors")
    assert reference.keys() == {name for name in start if name != "lm_head.weight"}
    for name, tensor in reference.items():
        torch.testing.assert_close(tensor, 0.75 * start[name].float() + 0.25 * policy[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("extra", [[], ["--use_peft", "--lora_r", 4]], ids=["full", "lora"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_resumed_run_goes_on_with_the_moved_reference_bit_for_bit(
    step: int, extra: list[Any], tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = [*SYNC, "--ref_model_mixup_alpha", 1 if extra else 0.6, "--max_steps", 6, *extra]
    words += ["--save_strategy", "steps", "--save_steps", 1, "--loss_type", "bco_pair"]
    run_burnish(*job(data, tmp_path / "whole", *words))
    run_burnish(*job(data, tmp_path / "cut", *words))
    for later in range(step + 1, 7):
        (tmp_path / "cut" / "checkpoints" / f"step-{later}" / "MANIFEST.json").unlink()
    run_burnish(*job(data, tmp_path / "cut", *words, "--resume_from_checkpoint", "auto"))
    name = "adapter_model.safetensors" if extra else "model.safetensors"
    whole, cut = (tmp_path / run / "model" / name for run in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    assert _rewards(tmp_path / "whole") == _rewards(tmp_path / "cut")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sync_ref_model", "--use_peft"], "give --ref_model_mixup_alpha 1"),
        (["--ref_model_sync_steps", "2"], "no effect without --sync_ref_model"),
        (["--sync_ref_model", "--loss_type", "orpo"], "orpo compares with no reference"),
        (["--sync_ref_model", "--reference_free"], "loads no reference"),
    ],
)
def test_what_cannot_move_is_refused(words: list[str], says: str, tmp_path: Path, capsys: Any) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", *words), expect=2)
    assert says in capsys.readouterr().err
