"""A training step does not wait for the device: one copy to the host a step, and one more where it is logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from burnish import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
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
    with pytest.MonkeyPatch.context() as patch, waits:
        for name in ("tolist", "numpy", "cpu"):
            plain = getattr(torch.Tensor, name)

            def counted(self: torch.Tensor, *args: Any, _name: str = name, _plain: Any = plain, **kwargs: Any) -> Any:
                waits.names.append(_name)
                return _plain(self, *args, **kwargs)

            patch.setattr(torch.Tensor, name, counted)
        yield waits.names


def _settings(tmp_path: Path, data: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(POLICY), "dataset_name": str(data), "output_dir": str(tmp_path / "run"),
        "global_batch_size": 8, "max_tokens_per_micro_batch": 64, "logging_steps": 3, "save_strategy": "no",
        "eval_strategy": "no", "num_samples": 0, "num_threads": 1, "reference_cache": "memory", "device": "cpu",
    }  # fmt: skip


def _count_by_step(trainer: Any, steps: int) -> list[list[str]]:
    loop = trainer.loop
    loop.passes.scorer.train()
    counts: list[list[str]] = []
    try:
        for _ in range(steps):
            with _host_transfers() as names:
                loop._one_step()
            counts.append(list(names))
    finally:
        trainer.close()
    return counts


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_many_micro_batches_copies_to_the_host_once(tmp_path: Path, loss_type: str, precision: Any) -> None:
    settings = _settings(tmp_path, write_pairs(tmp_path / "rows.jsonl", count=64))
    trainer = DPOTrainer(args=DPOConfig(**settings, loss_type=[loss_type], precision=precision))
    first, second, logged, fourth = _count_by_step(trainer, 4)
    assert first == second == fourth == ["tolist"]
    assert logged[0] == "tolist"
    assert len(logged) > 1  # metrics, and what the reference has said since the last record


def test_the_second_epoch_copies_no_more(tmp_path: Path) -> None:
    trainer = DPOTrainer(args=DPOConfig(**_settings(tmp_path, write_pairs(tmp_path / "rows.jsonl", count=24))))
    assert _count_by_step(trainer, 5)[4] == ["tolist"]


def test_single_completions_copy_no_more(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=64, labelled=True)
    assert _count_by_step(KTOTrainer(args=KTOConfig(**_settings(tmp_path, data))), 2)[1] == ["tolist"]
