"""Single completions with a label, desirable or not.

L = log π - log π_ref of a completion, nats; β in 1/nats, > 0. Losses are (rows,), without row weights and not reduced,
and are divided by the step's rows. λ_D and λ_U weigh desirable and undesirable rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from burnish.errors import DataError
from burnish.objectives.metrics import Metric
from burnish.objectives.paired import Scalar

BALANCED_RATIO = (1.0, 4 / 3)
"""Where λ_D n_D / (λ_U n_U) should lie: KTO, 2402.01306."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UnpairedScores:
    """Scores of completions with a label; each tensor (rows,)."""

    logps: Tensor
    """log π(completion | prompt), nats."""
    ref_logps: Tensor
    """log π_ref, nats, without gradient."""
    num_tokens: Tensor
    """Counted tokens, ≥ 1."""
    is_desirable: Tensor
    """1 where the completion is desirable, else 0; of logps' dtype."""
    weight: Tensor
    """Row weights, ≥ 0."""

    @property
    def logratio(self) -> Tensor:
        """(rows,) log π - log π_ref, nats."""
        return self.logps - self.ref_logps

    @property
    def sign(self) -> Tensor:
        """(rows,) 1 for desirable, -1 for undesirable."""
        return 2 * self.is_desirable - 1


def kto_loss(
    scores: UnpairedScores,
    *,
    beta: Scalar,
    kl_reward: Scalar,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Desirable: λ_D (1 - σ(βL - z)); undesirable: λ_U (1 - σ(z - βL)).

    Source: Ethayarajh et al. (KTO), 2402.01306, eq. 8.

    Args:
        scores: of some rows.
        beta: 1/nats.
        kl_reward: z = kl_reward(...) of the whole step, without gradient.
        desirable_weight: λ_D ≥ 0.
        undesirable_weight: λ_U ≥ 0.
    """
    losses = torch.sigmoid(-scores.sign * (beta * scores.logratio - kl_reward))
    return losses * label_weights(scores, desirable_weight, undesirable_weight)


def apo_zero_unpaired_loss(
    scores: UnpairedScores, *, beta: Scalar, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """Desirable: λ_D (1 - σ(βL)); undesirable: λ_U σ(βL).

    Source: D'Oosterlinck et al. (APO), 2408.06266, eq. 7, taken apart. No KL term.
    """
    losses = torch.sigmoid(-scores.sign * beta * scores.logratio)
    return losses * label_weights(scores, desirable_weight, undesirable_weight)


def bco_loss(
    scores: UnpairedScores,
    *,
    beta: Scalar,
    reward_baseline: Scalar = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Desirable: -λ_D log σ(βL - δ); undesirable: -λ_U log σ(-(βL - δ)).

    δ, `reward_baseline`, is the mean reward of all steps before (running.RewardBaseline); 0 at the first.

    Source: Jung et al. (BCO), 2404.04656, section 4.
    """
    losses = -F.logsigmoid(scores.sign * (beta * scores.logratio - reward_baseline))
    return losses * label_weights(scores, desirable_weight, undesirable_weight)


def label_weights(scores: UnpairedScores, desirable_weight: float, undesirable_weight: float) -> Tensor:
    """λ_D or λ_U of each row, (rows,)."""
    return undesirable_weight + (desirable_weight - undesirable_weight) * scores.is_desirable


@dataclass(frozen=True, slots=True)
class UnpairedObjective:
    """One loss of labelled completions, and what a run must know about it."""

    function: Callable[..., Tensor]
    needs_mismatched: bool = False
    """Whether it needs `kl_reward` from mismatched completions of the whole step."""
    uses_reward_baseline: bool = False


UNPAIRED: dict[str, UnpairedObjective] = {
    "kto": UnpairedObjective(kto_loss, needs_mismatched=True),
    "apo_zero_unpaired": UnpairedObjective(apo_zero_unpaired_loss),
    "bco": UnpairedObjective(bco_loss, uses_reward_baseline=True),
}


def kl_reward(mismatched_logratios: Tensor, *, beta: Scalar) -> Tensor:
    """KTO's z: max(0, mean over the step of β·L(mismatched completion)), scalar, without gradient.

    Args:
        mismatched_logratios: (rows of the whole step, over all ranks,) log π - log π_ref of each mismatched completion.
        beta: 1/nats.
    """
    return (beta * mismatched_logratios.detach()).mean().clamp(min=0)


def mismatched_rows(prompts: Sequence[Hashable]) -> list[int]:
    """Whose completion each row's prompt is scored with, for KTO's z.

    Row i takes the completion of row i-1, cyclically, as TRL 1.16 does in its batch; where the two share their prompt,
    of the next row after it with another one.

    Args:
        prompts: the prompts of the optimizer step over all ranks, as anything that compares equal for equal prompts.

    Raises:
        DataError: all rows have one prompt.
    """
    if len(set(prompts)) < 2:
        raise DataError(
            "kto: all rows of an optimizer step have one prompt, and so have all others, while the KL term needs "
            "another: give rows of several prompts, or take loss_type apo_zero_unpaired or bco"
        )
    return [_other_row(prompts, row) for row in range(len(prompts))]


def balanced_desirable_weight(num_desirable: int, num_undesirable: int, *, undesirable_weight: float = 1.0) -> float:
    """The λ_D nearest to 1 with λ_D n_D / (λ_U n_U) in [1, 4/3]; 1 where a label does not occur.

    Source: KTO, 2402.01306.
    """
    if not (num_desirable and num_undesirable and undesirable_weight):
        return 1.0
    even = undesirable_weight * num_undesirable / num_desirable
    return min(max(1.0, BALANCED_RATIO[0] * even), BALANCED_RATIO[1] * even)


def unpaired_metrics(
    scores: UnpairedScores, rewards: Tensor, mean_logit_sums: Tensor | None = None
) -> dict[str, Metric]:
    """Rewards, log-probabilities and logits by label, under TRL's keys: chosen is desirable, rejected undesirable.

    Args:
        scores: of some rows.
        rewards: (rows,) β·L.
        mean_logit_sums: (rows,) sum over counted tokens of the mean logit over the vocabulary; None leaves it out.

    Returns:
        (sum, count) by key. `rewards/accuracies`: desirable rows with a reward above 0 and undesirable ones below, of
        all rows. `rewards/margins`, a difference of means, comes from add_margins.
    """
    rewards, logps = rewards.detach(), scores.logps.detach()
    by_label = {"chosen": scores.is_desirable, "rejected": 1 - scores.is_desirable}
    right = (scores.sign * rewards > 0).to(rewards.dtype)
    metrics: dict[str, Metric] = {}
    for side, has_label in by_label.items():
        metrics[f"rewards/{side}"] = ((rewards * has_label).sum(), has_label.sum())
        metrics[f"logps/{side}"] = ((logps * has_label).sum(), has_label.sum())
        if mean_logit_sums is not None:
            tokens = (scores.num_tokens * has_label).sum()
            metrics[f"logits/{side}"] = ((mean_logit_sums.detach() * has_label).sum(), tokens)
    metrics["rewards/accuracies"] = (right.sum(), torch.full((), float(len(rewards)), device=rewards.device))
    return metrics


def add_margins(means: Mapping[str, float]) -> dict[str, float]:
    """The means of an interval with `rewards/margins` = `rewards/chosen` - `rewards/rejected`, where it has both."""
    if not {"rewards/chosen", "rewards/rejected"} <= means.keys():
        return dict(means)
    return {**means, "rewards/margins": means["rewards/chosen"] - means["rewards/rejected"]}


def _other_row(prompts: Sequence[Hashable], row: int) -> int:
    after = ((row - 1 + distance) % len(prompts) for distance in range(len(prompts)))
    return next(other for other in after if prompts[other] != prompts[row])
