"""The token budget that a timing finds: what is timed, what wins, and a run that a timing leaves as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from burnish import DPOConfig, DPOTrainer
from burnish.data.groups import PromptGroup
from burnish.device.memory import _control_group_available_bytes
from burnish.engine import token_budget
from burnish.engine.cut import Cut
from burnish.engine.token_budget import Candidate, list_candidates, time_budgets
from burnish.methods import budget
from jobs import POLICY, job, stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

TIMES = ("_runtime", "_per_second", "_seconds")


def _group(length: int) -> PromptGroup:
    ids = np.arange(length, dtype=np.int32)
    return PromptGroup(ids[:1], (ids[1:],), (np.ones(length - 1, bool),))


def _cut(max_tokens: int, *, packed: bool) -> Cut:
    return Cut(shared=True, pad_id=0, max_tokens=max_tokens, packed=packed)


@given(st.lists(st.integers(2, 900), min_size=1, max_size=40), st.integers(1, 5000), st.booleans())
def test_each_candidate_is_timed_with_one_micro_batch_within_its_budget(
    lengths: list[int], most: int, packed: bool
) -> None:
    found = list_candidates([_group(length) for length in lengths], most=most, cut_of=partial(_cut, packed=packed))
    budgets = [candidate.budget for candidate in found]
    assert budgets == sorted(set(budgets))
    assert budgets[-1] == most
    for candidate in found:
        assert len(candidate.groups) == 1 or candidate.num_tokens <= candidate.budget


def test_budgets_that_cut_alike_are_timed_once() -> None:
    find = partial(list_candidates, most=4096, cut_of=partial(_cut, packed=True))
    of_pairs = find([_group(300)] * 16)
    assert [(one.budget, len(one.groups)) for one in of_pairs] == [(512, 1), (1024, 3), (2048, 6), (4096, 13)]
    assert [one.budget for one in find([_group(30)] * 16)] == [4096]  # a whole step, whatever the budget
    assert [one.budget for one in find([_group(900)] * 16)] == [1024, 2048, 4096]
    assert [one.budget for one in find([_group(300)] * 16, num_ranks=8)] == [512, 4096]


class _Passes:
    """What time_budgets needs of passes, of a device that takes given seconds for each budget."""

    def __init__(self, others: dict[int, float] | None = None) -> None:
        self.ranks, self.others, self.current = self, others or {}, 0

    def beat(self, _: str) -> None: ...

    def agree(self, values: Sequence[float]) -> list[float]:
        return [max(value, self.others.get(self.current, 0.0)) for value in values]


def _timed(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], others: dict[int, float] | None = None
) -> token_budget.BudgetTiming:
    passes: Any = _Passes(others)

    def take(_: Any, candidate: Candidate) -> list[float]:
        passes.current = candidate.budget
        return [seconds[candidate.budget], 2 * seconds[candidate.budget]]

    monkeypatch.setattr(token_budget, "_time", take)
    groups = [_group(128)] * 64
    return time_budgets(passes, list_candidates(groups, most=4096, cut_of=partial(_cut, packed=True)))


def test_the_cheapest_token_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _timed(monkeypatch, {512: 0.1, 1024: 0.16, 2048: 0.25, 4096: 0.4}).best == 4096
    assert _timed(monkeypatch, {512: 0.1, 1024: 0.16, 2048: 0.36, 4096: 0.4}).best == 1024


def test_a_larger_budget_must_save_a_worthwhile_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _timed(monkeypatch, {512: 1.0, 1024: 1.96, 2048: 1.0}).best == 512
    assert _timed(monkeypatch, {512: 1.0, 1024: 1.92, 2048: 3.8}).best == 1024


def test_a_budget_that_memory_cannot_hold_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _timed(monkeypatch, {512: 1.0, 1024: 1.6, 2048: math.inf})
    assert found.best == 1024
    assert "2,048: out of memory" in found.one_line()
    assert _timed(monkeypatch, {512: math.inf}).best is None


def test_ranks_take_the_budget_that_suits_the_slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {512: 1.0, 1024: 1.2, 2048: 1.4, 4096: 1.6}
    assert _timed(monkeypatch, mine, others={512: 1.0, 1024: 1.2, 2048: math.inf}).best == 1024
    assert _timed(monkeypatch, mine, others={512: 1.0, 1024: 3.0}).best == 512


def test_no_candidate_begins_that_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(_timed(monkeypatch, {512: 2.0, 1024: 3.7}).rates) == [512, 1024]
    alone = _timed(monkeypatch, {512: 9.0})
    assert list(alone.rates) == [512]
    assert alone.best is None
    assert "by formula, for want of two to compare" in alone.one_line()


@pytest.fixture
def timed_to_64(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs of any length are timed, and 64 tokens win; gives the tokens of each computed micro-batch."""
    computed: list[int] = []
    plain = token_budget._compute

    def compute(passes: Any, scorer: Any, candidate: Candidate) -> None:
        plain(passes, scorer, candidate)
        assert any(parameter.grad is not None for parameter in scorer.parameters())
        computed.append(candidate.num_tokens)

    def seconds_of(work: Any, _: torch.device) -> float:
        work()
        return 1.0 if computed[-1] <= 32 else 1.2 if computed[-1] <= 64 else 9.0

    monkeypatch.setattr(token_budget, "_compute", compute)
    monkeypatch.setattr(token_budget, "seconds_of", seconds_of)
    monkeypatch.setattr(token_budget, "LEAST_BUDGET", 32)
    monkeypatch.setattr(budget, "PAYS_BACK", 100.0)
    return computed


def _files(run: Path, name: str) -> tuple[list[dict[str, Any]], bytes]:
    records = [{k: v for k, v in record.items() if not k.endswith(TIMES)} for record in read_metrics(run)]
    return records, (run / "model" / name).read_bytes()


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("dpo", []),
        ("dpo", ["--use_peft", "--lora_dropout", 0.1, "--lora_r", 4]),
        ("dpo", ["--precision", "bf16", "--loss_type", "aot"]),
        ("reward", []),
        ("sft", ["--neftune_noise_alpha", 5]),
    ],
)
def test_a_timed_run_is_the_run_that_is_told_its_budget(
    command: str, extra: list[Any], timed_to_64: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = write_completions if command == "sft" else write_pairs
    data = write(tmp_path / "rows.jsonl", count=48)
    words = [*extra, "--max_steps", 4, "--save_strategy", "steps", "--save_steps", 2]
    run_burnish(*stage_job(command, data, tmp_path / "timed", *words))
    assert timed_to_64
    assert "token budget: micro-batches of at most 64 tokens, timed in" in capsys.readouterr().err
    run_burnish(*stage_job(command, data, tmp_path / "told", *words, "--max_tokens_per_micro_batch", 64))
    name = "adapter_model.safetensors" if "--use_peft" in extra else "model.safetensors"
    assert _files(tmp_path / "timed", name) == _files(tmp_path / "told", name)


def test_a_resumed_run_keeps_the_budget_and_times_nothing(timed_to_64: list[int], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "rows.jsonl", count=48)
    words = ["--save_strategy", "steps", "--save_steps", 2]
    run_burnish(*job(data, tmp_path / "whole", *words, "--max_steps", 4))
    run_burnish(*job(data, tmp_path / "cut", *words, "--max_steps", 4))
    (tmp_path / "cut" / "checkpoints" / "step-4" / "MANIFEST.json").unlink()
    timed_to_64.clear()
    run_burnish(*job(data, tmp_path / "cut", *words, "--max_steps", 4, "--resume_from_checkpoint", "auto"))
    assert not timed_to_64
    assert _files(tmp_path / "whole", "model.safetensors") == _files(tmp_path / "cut", "model.safetensors")
    for run in ("whole", "cut"):
        assert yaml.safe_load((tmp_path / run / "run.yaml").read_text())["max_tokens_per_micro_batch"] == 64
        counters = json.loads((tmp_path / run / "checkpoints" / "step-4" / "counters.json").read_text())
        assert counters["cut"]["max_tokens"] == 64


def test_memory_that_runs_out_in_a_timing_is_no_error(
    timed_to_64: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = token_budget._compute

    def compute(passes: Any, scorer: Any, candidate: Candidate) -> None:
        plain(passes, scorer, candidate)
        if candidate.num_tokens > 32:
            raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(token_budget, "_compute", compute)
    run_burnish(*job(write_pairs(tmp_path / "rows.jsonl"), tmp_path / "run", "--max_steps", 1))
    assert "at most 32 tokens" in (told := capsys.readouterr().err)
    assert "64: out of memory" in told


def _plan(data: Path, capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    run_burnish(*job(data, data.parent / "none", "--dry_run", *words))
    return next(line for line in capsys.readouterr().out.splitlines() if "micro-batches" in line)


def test_the_plan_says_how_the_budget_comes_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "rows.jsonl")
    assert "1,024 tokens each (by formula: no other one would cut a step otherwise)" in _plan(data, capsys)
    monkeypatch.setattr(token_budget, "LEAST_BUDGET", 32)
    assert "by formula: the run is too short for a timing to pay back" in _plan(data, capsys)
    assert "64 tokens each (as asked)" in _plan(data, capsys, "--max_tokens_per_micro_batch", 64)
    assert "by formula, until a timing before step 1" in _plan(data, capsys, "--num_train_epochs", 1000)
    try:
        told = _plan(data, capsys, "--num_train_epochs", 1000, "--deterministic")
    finally:
        torch.use_deterministic_algorithms(False)
    assert "by formula, as --deterministic asks" in told


def test_less_free_memory_leaves_larger_budgets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pairs(tmp_path / "rows.jsonl")
    args = DPOConfig(model_name_or_path=str(POLICY), dataset_name=str(data), dry_run=True, num_threads=1)
    session = DPOTrainer(args=args).session
    most = {}
    for free in (0, 10**12):
        monkeypatch.setattr(budget, "available_memory_bytes", lambda _, free=free: free)
        most[free] = budget._most_tokens(session)
    assert most == {0: 1024, 10**12: 4096}


def test_a_container_has_the_memory_of_its_control_group(tmp_path: Path) -> None:
    assert _control_group_available_bytes(tmp_path) > 2**60
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert _control_group_available_bytes(tmp_path) == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert _control_group_available_bytes(tmp_path) > 2**60
