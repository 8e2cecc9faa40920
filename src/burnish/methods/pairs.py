"""From a micro-batch's scores to its pairs and lists, with row columns, rankings and token weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.data.store import GroupStore
from burnish.errors import ConfigError, DataError
from burnish.objectives.lists import ListScores, pairs_of_lists, ranked_order, ranked_pairs
from burnish.objectives.scores import PairScores
from burnish.objectives.tokens import discount_weights, likelihood_weights
from burnish.scoring.scores import CompletionScores, weighted_logps


def ranks_of(group: PromptGroup) -> tuple[int, ...]:
    """Rank of each completion of a group, 0 the best; a pair has the chosen one first."""
    return group.ranking or tuple(range(group.num_completions))


def is_plain(groups: Sequence[PromptGroup]) -> bool:
    """Whether the groups are pairs, the chosen completion first."""
    return all(ranks_of(group) == (0, 1) for group in groups)


def chosen_weight(group: PromptGroup) -> float:
    """Counted tokens of the chosen completion; of a list, the mean over its ranked pairs."""
    ranks = ranks_of(group)
    if ranks == (0, 1):
        return group.counted_weight(0)
    worse = [sum(rank < other for other in ranks) for rank in ranks]
    total = sum(count * group.counted_weight(number) for number, count in enumerate(worse))
    return total / max(1, sum(worse))


def of_best(batch: MicroBatch) -> Tensor:
    """(counted,) 1 where a token belongs to the chosen completion of a pair or the best of a list, else 0."""
    best = torch.tensor([float(rank == 0) for group in batch.groups for rank in ranks_of(group)])
    return best.to(batch.completion_of.device).index_select(0, batch.completion_of)


@dataclass(frozen=True, slots=True)
class PairReader:
    """What the settings make of the scores of completions."""

    label_smoothing: float
    """Of rows that bring none of their own."""
    ld_alpha: float | None
    reference_free: bool

    def pairs(self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch) -> PairScores:
        """Pairs of a micro-batch: of a list, all in which one completion ranks above the other."""
        logps, ref_logps, likelihoods = self._logps(scores, reference, batch)
        counts = weighted_counts(batch)
        smoothing = label_smoothing_of(batch, self.label_smoothing)
        if is_plain(batch.groups):
            return PairScores.from_completions(
                logps,
                ref_logps,
                counts,
                weight=batch.weight,
                margin=batch.margin,
                label_smoothing=smoothing,
                pair_weight=_pair_weight(scores, batch),
                chosen_likelihood=None if likelihoods is None else likelihoods[0::2],
                prompt_logps=scores.prompt_logps,
            )
        pairs = self.ranked(batch)
        return pairs_of_lists(logps, ref_logps, counts, pairs, weight=batch.weight, label_smoothing=smoothing)

    def ranked(self, batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Chosen and rejected completion and the list of each ranked pair, each (pairs,), on the device."""
        chosen, rejected, lists = ranked_pairs(_rankings(batch))
        device = batch.weight.device
        return chosen.to(device), rejected.to(device), lists.to(device)

    def logit_sums(self, scores: CompletionScores, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Mean logits summed over counted tokens, and how many, of each pair's chosen and rejected completion."""
        if is_plain(batch.groups):
            return scores.mean_logit_sums, batch.num_counted
        chosen, rejected, _ = self.ranked(batch)
        both = torch.stack([chosen, rejected], dim=1).reshape(-1)
        return scores.mean_logit_sums.index_select(0, both), batch.num_counted.index_select(0, both)

    def lists(
        self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch, loss_type: str
    ) -> ListScores:
        """Ranked lists of a micro-batch, the best completion first; a pair is a list of two."""
        logps, ref_logps, _ = self._logps(scores, reference, batch)
        order, mask = (part.to(logps.device) for part in ranked_order(_rankings(batch), loss_type=loss_type))
        ref_logps = torch.zeros_like(logps) if ref_logps is None else ref_logps
        return ListScores.from_completions(logps, ref_logps, order, mask, weight=batch.weight)

    def _logps(
        self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(completions,) of policy and reference, and of the policy without ld_alpha where it is in use."""
        weights = token_weights(batch)
        likelihoods = None
        if self.ld_alpha is not None:
            likelihoods = weighted_logps(scores, batch, weights)
            places = (batch.completion_of, batch.offset_of)
            discounts = discount_weights(batch.num_counted, *places, ld_alpha=self.ld_alpha)
            weights = discounts if weights is None else weights * discounts
        logps = weighted_logps(scores, batch, weights)
        if self.reference_free:
            return logps, torch.zeros_like(logps), likelihoods
        return logps, None if reference is None else weighted_logps(reference, batch, weights), likelihoods


def label_smoothing_of(batch: MicroBatch, otherwise: float) -> Tensor | None:
    """(groups,) rows' own, `otherwise` where a row has none; None where no row has one."""
    values = [group.label_smoothing for group in batch.groups]
    if all(value is None for value in values):
        return None
    filled = [otherwise if value is None else value for value in values]
    return torch.tensor(filled, dtype=torch.float32, device=batch.weight.device)


def token_weights(batch: MicroBatch) -> Tensor | None:
    """(counted,) float32 weights of the counted tokens; None where all weigh 1."""
    if all(group.token_weights is None for group in batch.groups):
        return None
    parts: list[Tensor] = []
    for group in batch.groups:
        skipped = 0 if len(group.prompt_ids) else 1  # nothing predicts a text's first token
        for number, mask in enumerate(group.completion_mask):
            size = int(mask[skipped:].sum())
            given = None if group.token_weights is None else group.token_weights[number][skipped:][mask[skipped:]]
            parts.append(torch.ones(size) if given is None else torch.from_numpy(given))
    return torch.cat(parts).to(batch.weight.device)


def weighted_counts(batch: MicroBatch) -> Tensor:
    """(completions,) counted tokens, each as much as its weight."""
    weights = token_weights(batch)
    if weights is None:
        return batch.num_counted
    return batch.num_counted.new_zeros(batch.num_completions).index_add(0, batch.completion_of, weights)


def _rankings(batch: MicroBatch) -> list[tuple[int, ...]]:
    return [ranks_of(group) for group in batch.groups]


def _pair_weight(scores: CompletionScores, batch: MicroBatch) -> Tensor | None:
    """(pairs,) WPO's weights, where the scorer was asked for what they need."""
    if scores.log_sum_squares is None:
        return None
    places = (batch.completion_of, batch.offset_of)
    return likelihood_weights(
        scores.token_logps, scores.log_sum_squares, *places, batch.num_counted, max_counted=batch.max_counted
    )


def refuse_lists(groups: GroupStore, settings: Sequence[str]) -> None:
    """Raise ConfigError where there are lists, and settings or columns that only pairs have."""
    if groups.max_completions > 2 and settings:
        raise ConfigError(f"{' and '.join(settings)} belongs to pairs, and there are lists of more: leave it out")


def refuse_ties(groups: GroupStore, loss_type: str) -> None:
    """Raise DataError for the first list with a tie that the objective does not admit, naming its row."""
    _each(groups, lambda group: ranked_order([ranks_of(group)], loss_type=loss_type))


def need_columns(groups: GroupStore, loss_types: Sequence[str]) -> None:
    """Raise DataError for rows without odpo's margin, or with a label_smoothing of 0 where exo_pair takes its log."""

    def check(group: PromptGroup) -> None:
        if group.label_smoothing == 0:
            raise DataError("label_smoothing is 0, and loss_type exo_pair takes its logarithm")

    if "odpo" in loss_types and not groups.all_have("margin"):
        raise DataError("loss_type odpo needs a margin in every row, and some rows have none")
    if "exo_pair" in loss_types and groups.has("label_smoothing"):
        _each(groups, check)


def _each(groups: GroupStore, check: Callable[[PromptGroup], object]) -> None:
    for group in groups:
        try:
            check(group)
        except DataError as error:
            raise DataError(f"{group.source}, row {group.row}: {error}") from error
