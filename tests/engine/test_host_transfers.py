"""A training step waits for the device once, to see that it is finite, and once more where a record is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from burnish import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from jobs import POLICY, write_completions, write_pairs

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2"}
"""Operators whose result's value or shape the host must know."""


class _Waits(TorchDispatchMode):
    """Notes every operator that an accelerator would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or by_mask:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def _host_transfers() -> Iterator[list[str]]:
    """Names of what brings values to the host; copies of CPU tensors count, as they would on a device."""
    waits = _Waits()
    on_host: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch, waits:
        for name in ("tolist", "numpy", "cpu"):
            plain = getattr(torch.Tensor, name)

            def counted(self: torch.Tensor, *args: Any, _name: str = name, _plain: Any = plain, **kwargs: Any) -> Any:
                if not any(self is copied for copied in on_host):
                    waits.names.append(_name)
                given = _plain(self, *args, **kwargs)
                on_host.extend([given] if _name == "cpu" else [])  # what is made of a copy is no transfer
                return given

            patch.setattr(torch.Tensor, name, counted)
        yield waits.names


def _trainer(method: str, tmp_path: Path, *, count: int = 64, **settings: Any) -> Any:
    """A trainer whose steps of 8 groups need several micro-batches, and whose every 4th step is logged."""
    config_type, trainer_type = {
        "dpo": (DPOConfig, DPOTrainer), "sft": (SFTConfig, SFTTrainer),
        "kto": (KTOConfig, KTOTrainer), "reward": (RewardConfig, RewardTrainer),
    }[method]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    paired = method in ("dpo", "reward")
    data = write_pairs(path, count=count) if paired else write_completions(path, count=count, labelled=method == "kto")
    cached = {"reference_cache": "memory"} if method in ("dpo", "kto") else {}
    config = config_type(
        model_name_or_path=str(POLICY), dataset_name=str(data), output_dir=str(tmp_path / "run"), global_batch_size=8,
        max_tokens_per_micro_batch=64, logging_steps=4, save_strategy="no", eval_strategy="no", num_samples=0,
        num_threads=1, device="cpu", **(cached | settings),
    )  # fmt: skip
    return trainer_type(args=config)


def _count_by_step(trainer: Any, steps: int) -> list[list[str]]:
    loop, counts = trainer.loop, []
    loop.passes.scorer.train()
    try:
        for step in range(steps):
            members = [int(index) for index in loop.sampler.groups_of(step)]
            assert len(loop.passes.cut.plan(members, [loop.groups[index] for index in members]).micro_batches) > 1
            with _host_transfers() as names:
                loop._one_step()
            counts.append(list(names))
    finally:
        trainer.close()
    return counts


ONE_A_STEP_AND_ONE_A_RECORD = [["cpu"], ["cpu"], ["cpu"], ["cpu", "tolist"]] * 2


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dpo", {}),
        ("dpo", {"precision": "bf16"}),
        ("dpo", {"loss_type": ["ipo"]}),
        ("dpo", {"loss_type": ["aot"]}),
        ("dpo", {"token_metrics": True, "use_peft": True}),
        ("dpo", {"sync_ref_model": True, "ref_model_sync_steps": 3}),
        ("sft", {"packing": True, "precision": "bf16"}),
        ("kto", {}),
        ("reward", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "plain",
)
def test_one_copy_a_step_and_one_a_record(method: str, settings: dict[str, Any], tmp_path: Path) -> None:
    assert _count_by_step(_trainer(method, tmp_path, **settings), 8) == ONE_A_STEP_AND_ONE_A_RECORD


def test_epochs_from_the_cache_copy_no_more(tmp_path: Path) -> None:
    counts = _count_by_step(_trainer("dpo", tmp_path, count=24), 8)  # epochs of 3 steps
    assert counts == ONE_A_STEP_AND_ONE_A_RECORD


def test_a_row_that_stands_twice_in_a_step_copies_no_more(tmp_path: Path) -> None:
    trainer = _trainer("dpo", tmp_path, count=4)
    row = (tmp_path / "rows.jsonl").read_text()
    (tmp_path / "rows.jsonl").write_text(row * 8)
    assert _count_by_step(trainer, 4) == ONE_A_STEP_AND_ONE_A_RECORD[:4]
