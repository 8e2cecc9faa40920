"""What a model says of the completions of a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.scoring.routing import Routing


@dataclass(slots=True, eq=False)
class CompletionScores:
    """Log-probabilities of counted tokens, and what follows from them; float32 whatever the compute dtype."""

    token_logps: Tensor
    """(counted,) nats: log-probability of each counted token, in the micro-batch's order."""
    logps: Tensor
    """(completions,) nats: sum over each completion's counted tokens."""
    mean_logit_sums: Tensor
    """(completions,): sum over counted tokens of the mean logit over the vocabulary; no gradient."""
    entropies: Tensor | None = None
    """(counted,) nats: entropy of the distribution that each counted token was drawn from; no gradient."""
    correct: Tensor | None = None
    """(counted,) 0 or 1: whether the counted token was the likeliest; no gradient."""
    log_sum_squares: Tensor | None = None
    """(counted,) nats, ≤ 0: log of the sum over the vocabulary of squared probabilities; no gradient."""
    mean_logps: Tensor | None = None
    """(counted,) nats: mean log-probability over the vocabulary; with gradient."""
    log_normalizers: Tensor | None = None
    """(counted,) nats: log-sum-exp of the logits; with gradient."""
    prompt_logps: Tensor | None = None
    """(groups,) nats: log-probability of each prompt after its first token, where it was asked for."""
    routing: Routing | None = None
    """How a mixture-of-experts model routed the tokens, where it was asked for."""
    rewards: Tensor | None = None
    """(completions,) what a reward model gives; the tensors of log-probabilities are then empty."""

    @property
    def given_rewards(self) -> Tensor:
        """Rewards of a reward model's scores."""
        assert self.rewards is not None, "these are scores of a language model"
        return self.rewards


def sum_by_completion(values: Tensor, batch: MicroBatch) -> Tensor:
    """Sum values of counted tokens by completion.

    Goes through a table of (completions, max_counted) in which each place is written once, so that forward and
    backward are reproducible on every device, which a scattered addition is not.

    Args:
        values: (counted,) one value a counted token.
        batch: says which completion each belongs to.

    Returns:
        (completions,) sums.
    """
    table = values.new_zeros(batch.num_completions * batch.max_counted)
    slots = batch.completion_of * batch.max_counted + batch.offset_of
    return table.index_copy(0, slots, values).view(batch.num_completions, batch.max_counted).sum(dim=1)


def weighted_logps(scores: CompletionScores, batch: MicroBatch, token_weights: Tensor | None) -> Tensor:
    """(completions,) sums of log-probabilities, nats, each counted token times its weight where there are any."""
    return scores.logps if token_weights is None else sum_by_completion(scores.token_logps * token_weights, batch)


def join_scores(token_logps: Tensor, mean_logits: Tensor, batch: MicroBatch) -> CompletionScores:
    """Build the scores from values of counted tokens, both (counted,)."""
    return CompletionScores(
        token_logps=token_logps,
        logps=sum_by_completion(token_logps, batch),
        mean_logit_sums=sum_by_completion(mean_logits.detach().to(torch.float32), batch),
    )
