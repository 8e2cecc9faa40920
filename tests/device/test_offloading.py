"""Activations on the host: the same gradients, the device's copies gone, weights left where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from builders import build_groups, build_model, gradients
from burnish.batching.layout import lay_out
from burnish.device.offloading import HostMemory
from burnish.methods.opening import enable_checkpointing
from burnish.scoring.scorer import Scorer
from jobs import job, write_pairs
from runs import run_burnish

SIZE = 64


def _pointer(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("recomputes", [False, True])
def test_gradients_are_the_same_bit_for_bit(recomputes: bool, packed: bool) -> None:
    found = []
    for holds in (False, True):
        model = build_model("qwen2")
        if recomputes:
            enable_checkpointing(model)
        scorer = Scorer(model)
        if holds:
            scorer.keeping = HostMemory(model)
        for seed in (1, 2):
            scorer(lay_out(build_groups(seed), shared=True, pad_id=0, packed=packed)).logps.sum().backward()
        found.append(gradients(model))
    assert torch.equal(*found)


def test_the_forward_pass_leaves_nothing_but_weights_on_the_device() -> None:
    model = nn.Sequential(nn.Linear(SIZE, 2 * SIZE), nn.ReLU(), nn.Linear(2 * SIZE, SIZE))
    outputs: list[StorageWeakRef] = []
    model[1].register_forward_hook(lambda _, __, output: outputs.append(StorageWeakRef(output.untyped_storage())))
    results = []
    for block in (HostMemory(model), None):
        with block() if block is not None else torch.enable_grad():
            results.append(model(torch.ones(SIZE // 2, SIZE)).sum())
    assert [output.expired() for output in outputs] == [True, False]


def test_weights_stay_and_what_several_operations_keep_is_copied_once() -> None:
    first, second = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
    inputs = torch.rand(SIZE // 2, SIZE, requires_grad=True)
    with HostMemory(nn.ModuleList([first, second]))():
        results: list[Any] = [first(inputs).grad_fn, second(inputs).grad_fn]
    assert _pointer(results[0]._saved_mat2) == _pointer(first.weight)
    copies = {_pointer(result._saved_mat1) for result in results}
    assert len(copies) == 1
    assert _pointer(inputs) not in copies


def test_on_the_cpu_a_line_says_that_nothing_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--activation_offloading", "--dry_run"))
    assert "--activation_offloading: nothing moves, for the CPU's memory is the host's" in capsys.readouterr().err
    run_burnish(*job(data, tmp_path / "run", "--activation_offloading", "maybe"), expect=2)
    assert "activation_offloading" in capsys.readouterr().err
