"""State from step to step: reward baseline, β-DPO, schedules, moving reference."""

from __future__ import annotations

import pytest
import torch

from burnish.errors import ConfigError
from burnish.objectives.moving_reference import check_moving_reference, is_due, mix
from burnish.objectives.running import RewardBaseline, beta_dpo, scheduled_beta


def sums(values: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(sum(values)), torch.tensor(float(len(values)))


def test_the_baseline_is_0_before_the_first_step():
    assert RewardBaseline.start().value.item() == 0


def test_the_baseline_is_the_mean_of_both_classes_means_over_all_steps_before():
    state = RewardBaseline.start().after(sums([1.0, 2.0]), sums([-1.0, 0.5]))
    assert state.value.item() == pytest.approx((1.5 - 0.25) / 2)
    state = state.after(sums([3.0]), sums([1.0, 1.0, 1.0]))
    assert state.value.item() == pytest.approx((6 / 3 + 2.5 / 5) / 2)


def test_the_baseline_is_the_seen_classs_mean_while_the_other_is_unseen():
    assert RewardBaseline.start().after(sums([1.0, 3.0]), sums([])).value.item() == 2


def test_beta_dpo_equals_the_rule_step_by_step():
    running, expected_running = torch.zeros(()), 0.0
    for margin in (0.4, -0.2, 1.3, 0.0):
        beta, running = beta_dpo(torch.tensor(margin), running, beta=0.1, alpha=0.6)
        expected_running = 0.9 * expected_running + 0.1 * margin
        assert beta.item() == pytest.approx(0.1 * (1 + 0.6 * (margin - expected_running)))
        assert running.item() == pytest.approx(expected_running)


def test_beta_dpo_stays_positive_and_without_alpha_constant():
    assert beta_dpo(torch.tensor(-50.0), torch.tensor(0.0), beta=0.1, alpha=0.6)[0].item() == pytest.approx(0.001)
    assert beta_dpo(torch.tensor(-50.0), torch.tensor(0.0), beta=0.1, alpha=0.0)[0].item() == pytest.approx(0.1)


def test_beta_dpo_carries_no_gradient():
    margin = torch.tensor(0.4, requires_grad=True)
    beta, running = beta_dpo(margin, torch.zeros(()), beta=0.1, alpha=0.6)
    assert not beta.requires_grad
    assert not running.requires_grad


def test_schedules_start_and_end_where_they_are_told():
    for shape in ("linear", "cosine"):
        assert scheduled_beta(0.0, beta=0.1, final_beta=0.4, shape=shape) == pytest.approx(0.1)
        assert scheduled_beta(0.5, beta=0.1, final_beta=0.4, shape=shape) == pytest.approx(0.25)
        assert scheduled_beta(1.0, beta=0.1, final_beta=0.4, shape=shape) == pytest.approx(0.4)
    assert scheduled_beta(0.25, beta=0.1, final_beta=0.5) == pytest.approx(0.2)
    assert scheduled_beta(0.25, beta=0.1, final_beta=0.5, shape="cosine") < 0.2


def test_the_reference_moves_by_alpha_towards_the_policy():
    policy, reference = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    torch.testing.assert_close(mix(policy, reference, alpha=0.6), torch.tensor([0.6 + 1.2, 1.2 - 0.8]))
    assert torch.equal(mix(policy, reference, alpha=1.0), policy)
    assert mix(policy, reference.bfloat16(), alpha=0.5).dtype == torch.bfloat16


def test_the_reference_moves_every_so_many_steps():
    assert [step for step in range(1, 10) if is_due(step, every=3)] == [3, 6, 9]


@pytest.mark.parametrize(
    ("alpha", "every", "adapter", "message"),
    [
        (0.0, 10, False, "ref_model_mixup_alpha must be in"),
        (1.1, 10, False, "ref_model_mixup_alpha must be in"),
        (0.5, 0, False, "ref_model_sync_steps"),
        (0.5, 10, True, "mixing A and B is not mixing BA"),
    ],
)
def test_moving_references_that_cannot_work_are_refused(alpha, every, adapter, message):
    check_moving_reference(alpha=1.0, every=10, uses_adapter=True)
    check_moving_reference(alpha=0.6, every=10, uses_adapter=False)
    with pytest.raises(ConfigError, match=message):
        check_moving_reference(alpha=alpha, every=every, uses_adapter=adapter)
