"""The preference health line: what goes astray is told with its numbers, and nothing else is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from burnish.engine.health import HealthWatch, without_health
from burnish.objectives.combine import Combination
from burnish.objectives.health import length_sums, preference_health, unpaired_health
from burnish.objectives.scores import PairScores
from burnish.objectives.unpaired import UnpairedScores


@dataclass
class Limits:
    """The settings that the watch reads."""

    health_chosen_fall: float | None = 0.2
    health_saturation: float | None = 0.95
    health_length_correlation: float | None = 0.7


def watch(*, at_reference: bool = True, state: Any = None, **limits: Any) -> HealthWatch:
    settings: Any = Limits(**limits)
    return HealthWatch(settings, at_reference, {} if state is None else state)


def window(
    *, shift: Any = 0.0, margins: Any = None, lengths: Any = None, tokens: float = 20.0, pairs: int = 100
) -> dict[str, float]:
    """Sums of some pairs: chosen log-ratios, margins and differences in length."""
    spread = np.random.default_rng(0).normal(size=pairs)
    shifts = np.broadcast_to(shift, pairs) + spread
    margins = 0.1 * np.random.default_rng(1).normal(size=pairs) if margins is None else np.broadcast_to(margins, pairs)
    lengths = np.random.default_rng(2).normal(size=pairs) if lengths is None else lengths
    scores = PairScores(
        chosen_logps=torch.tensor(shifts - 50.0),
        rejected_logps=torch.full((pairs,), -60.0, dtype=torch.float64),
        ref_chosen_logps=torch.full((pairs,), -50.0, dtype=torch.float64),
        ref_rejected_logps=torch.full((pairs,), -60.0, dtype=torch.float64),
        chosen_num_tokens=torch.full((pairs,), tokens, dtype=torch.float64),
        rejected_num_tokens=torch.tensor(tokens - lengths),
        weight=torch.ones(pairs, dtype=torch.float64),
    )
    rewards = torch.tensor(np.asarray(margins)), torch.zeros(pairs, dtype=torch.float64)
    return {name: float(total) for name, (total, _) in preference_health(scores, *rewards, saturates=True).items()}


def test_a_run_that_is_well_says_nothing_and_writes_its_numbers() -> None:
    record, line = watch().judge(10, window())
    assert line is None
    assert record is not None
    assert record["problems"] == []
    assert (record["pairs"], record["first_step"]) == (100, 1)
    assert record["saturated_margins"] == 0
    assert abs(record["length_correlation"]) < 0.3


def test_chosen_completions_that_become_less_likely_are_told_with_nats_and_steps() -> None:
    watching = watch()
    assert watching.judge(50, window(shift=1.0))[1] is None
    record, line = watching.judge(100, window(shift=-11.0))
    assert line == "health: chosen log-probability fell 12 nats (0.6 a token) in 50 steps"
    assert record is not None
    assert record["chosen_logp_fall"] == pytest.approx(12)


def test_without_a_common_start_the_first_window_is_the_measure() -> None:
    watching = watch(at_reference=False)
    assert watching.judge(50, window(shift=-40.0))[1] is None
    assert "fell 12 nats" in str(watching.judge(100, window(shift=-52.0))[1])


def test_a_fall_within_the_spread_of_rows_is_no_fall() -> None:
    """Rows differ: few pairs whose mean is lower by less than four standard errors say nothing."""
    rough = 60 * np.random.default_rng(3).normal(size=64)
    rough -= rough.mean()
    watching = watch(at_reference=False)
    watching.judge(5, window(shift=rough, pairs=64))
    assert watching.judge(10, window(shift=rough - 10, pairs=64))[1] is None
    assert watching.judge(15, window(shift=rough - 60, pairs=64))[1] is not None


def test_margins_that_teach_nothing_more_are_told() -> None:
    line = watch().judge(10, window(margins=np.where(np.arange(100) < 97, 8.0, 0.0)))[1]
    assert line == "health: margins are saturated: 97% of pairs teach nothing more"
    assert watch().judge(10, window(margins=np.where(np.arange(100) < 90, 8.0, 0.0)))[1] is None


@pytest.mark.parametrize("sign", [1, -1])
def test_rewards_that_follow_length_are_told_with_their_correlation(sign: int) -> None:
    lengths = np.random.default_rng(4).integers(-30, 30, size=100).astype(float)
    noise = np.random.default_rng(5).normal(size=100)
    margins = sign * 0.1 * lengths + noise
    record, line = watch().judge(10, window(margins=margins, lengths=lengths))
    expected = np.corrcoef(margins, lengths)[0, 1]
    assert record is not None
    assert record["length_correlation"] == pytest.approx(expected)
    assert line == f"health: rewards follow length (r = {expected:.2f} over 100 pairs)"


def test_chosen_completions_that_are_always_longer_are_no_fault_of_the_rewards() -> None:
    record, _ = watch().judge(10, window(margins=2.0 + 0.1 * np.random.default_rng(6).normal(size=100), lengths=30.0))
    assert record is not None
    assert record["length_correlation"] == 0


def test_windows_close_once_they_hold_enough_pairs_however_they_are_logged() -> None:
    watching, parts = watch(), [window(pairs=16) for _ in range(8)]
    records = [watching.judge(step, part)[0] for step, part in enumerate(parts, 1)]
    assert [record is not None for record in records] == [False, False, False, True] * 2
    assert [record["first_step"] for record in records if record is not None] == [1, 5]


def test_a_problem_is_told_again_only_when_it_has_become_half_as_bad_again() -> None:
    watching = watch()
    lines = [watching.judge(10 * n, window(shift=-fall))[1] for n, fall in enumerate((10, 12, 14.9, 15.1, 20), 1)]
    assert [line is not None for line in lines] == [True, False, False, True, False]


@pytest.mark.parametrize("name", ["health_chosen_fall", "health_saturation", "health_length_correlation"])
def test_each_check_can_be_switched_off(name: str) -> None:
    lengths = np.linspace(-20, 20, 100)
    sick = window(shift=-30.0, margins=10 + lengths, lengths=lengths)
    record, line = watch(health_saturation=0.5).judge(10, sick)
    assert record is not None
    assert line is not None
    assert len(record["problems"]) == 3
    off, _ = watch(**{"health_saturation": 0.5, name: None}).judge(10, sick)
    assert off is not None
    assert len(off["problems"]) == 2


def test_numbers_that_are_not_finite_judge_nothing() -> None:
    watching = watch()
    record, line = watching.judge(10, {**window(), "health/md": math.nan, "health/chosen": math.nan})
    assert line is None
    assert record is not None


def test_the_state_goes_on_from_what_a_checkpoint_keeps() -> None:
    whole = watch()
    kept: dict[str, Any] = {}
    for step in range(1, 9):
        cut = watch(state=kept)
        assert cut.judge(step, window(shift=-step, pairs=40)) == whole.judge(step, window(shift=-step, pairs=40))


def test_sums_of_micro_batches_add_up_to_those_of_the_step() -> None:
    margins, lengths = torch.randn(64, dtype=torch.float64), torch.randint(-9, 9, (64,))
    whole = length_sums(margins, lengths)
    parts = [length_sums(margins[place : place + 16], lengths[place : place + 16]) for place in range(0, 64, 16)]
    for name, (total, count) in whole.items():
        assert float(sum(part[name][0] for part in parts)) == pytest.approx(float(total))
        assert float(count) == 0


@pytest.mark.parametrize(
    ("loss", "saturates"),
    [(["sigmoid"], True), (["ipo"], False), (["sigmoid", "sft"], True), (["sigmoid", "ipo"], False), (["sft"], False)],
)
def test_saturation_is_a_word_for_losses_that_flatten_out(loss: list[str], saturates: bool) -> None:
    assert Combination(loss, None, {"beta": 0.1}).saturates is saturates


def test_rows_with_labels_are_judged_by_the_desirable_ones() -> None:
    generator = np.random.default_rng(7)
    desirable = np.arange(80) % 2 == 0
    shifts = np.where(desirable, -9.0, 30.0) + generator.normal(size=80)
    lengths = generator.integers(20, 40, size=80)
    scores = UnpairedScores(
        logps=torch.tensor(shifts - 50.0),
        ref_logps=torch.full((80,), -50.0, dtype=torch.float64),
        num_tokens=torch.tensor(lengths),
        is_desirable=torch.tensor(desirable, dtype=torch.float64),
        weight=torch.ones(80, dtype=torch.float64),
    )
    rewards = 0.1 * scores.logratio
    sums = {name: float(total) for name, (total, _) in unpaired_health(scores, rewards).items()}
    record, line = watch().judge(10, sums)
    assert record is not None
    assert record["rows"] == 80
    assert record["chosen_logp_fall"] == pytest.approx(-shifts[desirable].mean())
    assert record["length_correlation"] == pytest.approx(np.corrcoef(rewards.numpy(), lengths)[0, 1])
    assert str(line).startswith("health: chosen log-probability fell 9")


def test_sums_are_never_logged_as_means() -> None:
    assert without_health({"loss": 1.0, "health/pairs": 3.0}) == {"loss": 1.0}
