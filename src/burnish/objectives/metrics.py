"""What is logged of pairs, by TRL's keys: sums and counts, so that means over any cut are exact.

A metric is (sum, count), two scalars on the scores' device. Row weights do not enter: these are statistics of the
model on the rows, not of the loss.
"""

from __future__ import annotations

from torch import Tensor

from burnish.objectives.facts import Reward
from burnish.objectives.paired import Scalar
from burnish.objectives.reference_free import alphapo_reward
from burnish.objectives.scores import PairScores

Metric = tuple[Tensor, Tensor]


def preference_rewards(
    scores: PairScores, kind: Reward, *, beta: Scalar, alphapo_alpha: float = 0.25
) -> tuple[Tensor, Tensor]:
    """Rewards of chosen and rejected completions, each (pairs,), no gradient.

    Args:
        scores: of some pairs.
        kind: logratio is β·(log π - log π_ref); average is β·log π a token; logp is β·log π; alphapo is
            β(1 - e^(-α·average))/α.
        beta: 1/nats.
        alphapo_alpha: α of alphapo.
    """
    chosen, rejected = {
        "logratio": lambda: (scores.chosen_logratio, scores.rejected_logratio),
        "average": lambda: (scores.chosen_average, scores.rejected_average),
        "logp": lambda: (scores.chosen_logps, scores.rejected_logps),
        "alphapo": lambda: (scores.chosen_average, scores.rejected_average),
    }[kind]()
    chosen, rejected = chosen.detach(), rejected.detach()
    if kind == "alphapo":
        chosen = alphapo_reward(chosen, beta=beta, alphapo_alpha=alphapo_alpha)
        return chosen, alphapo_reward(rejected, beta=beta, alphapo_alpha=alphapo_alpha)
    return beta * chosen, beta * rejected


def preference_metrics(
    scores: PairScores,
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    mean_logit_sums: Tensor | None = None,
    num_logits: Tensor | None = None,
) -> dict[str, Metric]:
    """Rewards, log-probabilities and logits of pairs; of lists, means over lists of the mean over their ranked pairs.

    Args:
        scores: of some pairs.
        chosen_rewards: (pairs,) nats.
        rejected_rewards: (pairs,) nats.
        mean_logit_sums: (completions,) chosen, rejected, …: each completion's sum over counted tokens of the mean logit
            over the vocabulary; None leaves `logits/…` out.
        num_logits: (completions,) in the same order: how many tokens each of these sums is over.

    Returns:
        `rewards/accuracies` is the share of pairs whose chosen reward is strictly greater (ties are misses);
        `logps/accuracies` the same of raw log-probabilities. `logits/…` are means over counted tokens.
    """
    chosen_logps, rejected_logps = scores.chosen_logps.detach(), scores.rejected_logps.detach()
    by_pair = {
        "rewards/chosen": chosen_rewards,
        "rewards/rejected": rejected_rewards,
        "rewards/accuracies": (chosen_rewards > rejected_rewards).to(chosen_rewards.dtype),
        "rewards/margins": chosen_rewards - rejected_rewards,
        "logps/chosen": chosen_logps,
        "logps/rejected": rejected_logps,
        "logps/accuracies": (chosen_logps > rejected_logps).to(chosen_logps.dtype),
    }
    count = scores.num_groups
    metrics = {key: (scores.total(values.detach()), count) for key, values in by_pair.items()}
    if mean_logit_sums is not None:
        counts = (scores.chosen_num_tokens, scores.rejected_num_tokens)
        counts = counts if num_logits is None else num_logits.view(-1, 2).unbind(dim=1)
        sums = mean_logit_sums.detach().view(-1, 2).unbind(dim=1)
        for side, total, number in zip(("chosen", "rejected"), sums, counts, strict=True):
            metrics[f"logits/{side}"] = (scores.total(total), scores.total(number))
    return metrics
