"""Which budgets and settings fit into a device's memory, on shapes alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from burnish.models.adapters import add_adapter
from burnish.models.fit import TOKENS_STEP, PaperRun, Setup, fewest_devices, find_setups, largest_budget
from burnish.models.settings import AdapterSettings

SHAPE: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 12, "num_attention_heads": 8,
    "vocab_size": 8000, "tie_word_embeddings": False,
}  # fmt: skip
MIB = 2**20


@cache
def _model(use_peft: bool, checkpointing: bool) -> Any:
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE)).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        return add_adapter(model, AdapterSettings()) if use_peft else model


def _run(memory: int, **changes: Any) -> PaperRun:
    build = lambda setup: _model(setup.use_peft, setup.gradient_checkpointing)  # noqa: E731
    return PaperRun(build=build, devices=1, memory=memory, row_tokens=512, **changes)


@given(st.integers(1, 5000), st.integers(0, 10**6), st.integers(1, 4000), st.integers(1024, 40_000))
def test_the_largest_budget_fits_and_the_next_does_not(each: int, fixed: int, row: int, most: int) -> None:
    usable = 10_000_000
    total_of = lambda tokens: fixed + each * tokens  # noqa: E731
    found = largest_budget(total_of, usable, row, most)
    if found is None:
        assert total_of(row) > usable
        return
    assert found >= row
    assert total_of(found) <= usable
    following = (found // TOKENS_STEP + 1) * TOKENS_STEP
    assert total_of(following) > usable or following > most


def test_room_for_all_changes_nothing() -> None:
    given = Setup()
    (only,) = find_setups(_run(64 * 2**30), given)
    assert only.setup == given
    assert only.max_tokens == 32 * 1024


def test_the_mildest_change_comes_first_and_each_that_is_offered_is_needed() -> None:
    run, given = _run(3800 * MIB), Setup()
    assert run.fitting(given) is None
    found = find_setups(run, given)
    assert found[0].setup == Setup(precompute_ref_log_probs=True)
    assert found[0].setup.flags_beside(given) == "--precompute_ref_log_probs"
    for fitting in found:
        assert run.estimate(fitting.setup, fitting.max_tokens).total <= run.usable


def test_slices_help_where_there_are_devices_and_their_number_is_looked_for() -> None:
    alone = _run(1600 * MIB)
    assert {fitting.setup.use_peft for fitting in find_setups(alone, Setup())} == {True}
    several = find_setups(replace(alone, devices=8), Setup())
    assert several[0].setup.parallel == "fsdp"
    found = fewest_devices(alone, Setup())
    assert found is not None
    devices, setup = found
    assert setup.parallel == "fsdp"
    assert not setup.use_peft
    assert not [f for f in find_setups(replace(alone, devices=devices // 2), Setup()) if not f.setup.use_peft]


def test_a_run_without_reference_is_not_told_to_precompute_it() -> None:
    for run in (_run(3800 * MIB, needs_reference=False), _run(3300 * MIB, can_precompute=False)):
        assert not [f for f in find_setups(run, Setup()) if f.setup.precompute_ref_log_probs]


def test_another_reference_counts_its_own_weights_whatever_adapter_there_is() -> None:
    other = _run(64 * 2**30, reference_weights=10**9, reference_dtype=torch.bfloat16)
    for setup in (Setup(), Setup(use_peft=True)):
        assert other.estimate(setup, 512).reference == 2 * 10**9
    assert other.estimate(Setup(precompute_ref_log_probs=True), 512).reference == 0
    shared = replace(other, devices=4).estimate(Setup(parallel="fsdp"), 512)
    assert shared.reference == 2 * 10**9 // 4


@pytest.mark.parametrize("use_peft", [False, True])
def test_adapters_hold_no_copy_as_reference(use_peft: bool) -> None:
    assert (_run(2**30).estimate(Setup(use_peft=use_peft), 512).reference == 0) is use_peft
