"""The glue of preferences: scores of a micro-batch in, its share of the loss and metrics out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.engine.method import Method, MicroBatchLoss, StepPart
from burnish.engine.metrics import SumAndCount
from burnish.methods.dpo import DPOConfig, DPOSettings, objective_values
from burnish.methods.trainer import Trainer
from burnish.objectives.combine import Combination, CoupledStep
from burnish.objectives.metrics import preference_metrics
from burnish.objectives.running import RewardBaseline
from burnish.objectives.scores import PairScores
from burnish.objectives.tokens import discount_weights, likelihood_weights
from burnish.scoring.scores import CompletionScores, sum_by_completion


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceStep:
    """What a micro-batch's loss is told of its step."""

    coupled: CoupledStep | None


class PreferenceMethod(Method):
    """`burnish dpo`: pairs, any combination of paired objectives."""

    name = "dpo"

    def __init__(self, settings: DPOSettings) -> None:
        values = objective_values(settings)
        self.combination = Combination(settings.loss_type, settings.loss_weights, values)
        self.shadows = Combination(settings.shadow_losses, None, values) if settings.shadow_losses else None
        self.needs_reference = self.combination.needs_reference
        self.needs_log_sum_squares = settings.use_weighting
        self.ld_alpha = settings.ld_alpha
        self.has_closed_start = self.combination.loss_at_start() is not None and not self.combination.needs_step_scores
        self._baseline = RewardBaseline.start()

    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Pairs, and counted tokens of the chosen completions, of a whole step."""
        chosen_tokens = sum(int(group.completion_mask[0].sum()) for group in groups)
        return {"pairs": float(len(groups)), "chosen_tokens": float(max(1, chosen_tokens))}

    def loss(
        self,
        scores: CompletionScores,
        reference: CompletionScores | None,
        batch: MicroBatch,
        denominators: Mapping[str, float],
        step: StepPart | None = None,
    ) -> MicroBatchLoss:
        """Objectives on the pairs of a micro-batch, divided by the step's counts."""
        pairs = self._pairs(scores, reference, batch)
        values = self._step_values(pairs)
        coupled = None if step is None or step.value.coupled is None else step.value.coupled.select(step.rows)
        loss, terms = self.combination.total(pairs, denominators, values, coupled=coupled)
        chosen_rewards, rejected_rewards = self.combination.rewards(pairs, values)
        metrics = preference_metrics(pairs, chosen_rewards, rejected_rewards, scores.mean_logit_sums)
        if len(terms) > 1:
            metrics |= terms
        metrics |= self._shadow_metrics(pairs, denominators, values)
        statistics = torch.stack([*metrics["rewards/chosen"], *metrics["rewards/rejected"]])
        return MicroBatchLoss(loss, metrics | token_metrics(scores, batch), statistics if self._has_baseline else None)

    def coupled_groups(self, groups: Sequence[PromptGroup]) -> Sequence[PromptGroup]:
        """The step's own pairs, where an objective couples them."""
        return groups if self.combination.needs_step_scores else ()

    def coupling_row(self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch) -> Tensor:
        """(pairs, columns) log-probabilities and token counts."""
        return self._pairs(scores, reference, batch).as_table()

    def couple(self, table: Tensor, denominators: Mapping[str, float]) -> PreferenceStep:
        """Objectives that couple the step, on all of its pairs."""
        pairs = PairScores.from_table(table, has_reference=self.needs_reference)
        return PreferenceStep(self.combination.couple(pairs, denominators, self._step_values(pairs)))

    def advance(self, value: Any, statistics: Tensor | None) -> None:
        """Take a step's rewards into BCO's δ."""
        if statistics is not None:
            chosen, chosen_count, rejected, rejected_count = statistics.unbind()
            self._baseline = self._baseline.to(statistics.device).after(
                (chosen, chosen_count), (rejected, rejected_count)
            )

    def state_tensors(self) -> dict[str, Tensor]:
        """BCO's δ."""
        if not self._has_baseline:
            return {}
        return {"baseline_sums": self._baseline.sums, "baseline_counts": self._baseline.counts}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's δ."""
        if self._has_baseline:
            self._baseline = RewardBaseline(tensors["baseline_sums"], tensors["baseline_counts"])

    def describe(self) -> str:
        """Terms with their weights, and the settings that they use."""
        return self.combination.in_words()

    @property
    def _has_baseline(self) -> bool:
        shadows = self.shadows is not None and self.shadows.uses_reward_baseline
        return self.combination.uses_reward_baseline or shadows

    def _pairs(self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch) -> PairScores:
        weights = pair_weight = likelihood = None
        if self.ld_alpha is not None:
            weights = discount_weights(batch.num_counted, *places(batch), ld_alpha=self.ld_alpha)
            likelihood = scores.logps[0::2]
        if self.needs_log_sum_squares and scores.log_sum_squares is not None:
            pair_weight = likelihood_weights(
                scores.token_logps,
                scores.log_sum_squares,
                *places(batch),
                batch.num_counted,
                max_counted=batch.max_counted,
            )
        return PairScores.from_completions(
            weighted_logps(scores, batch, weights),
            None if reference is None else weighted_logps(reference, batch, weights),
            batch.num_counted,
            weight=batch.weight,
            margin=batch.margin,
            pair_weight=pair_weight,
            chosen_likelihood=likelihood,
        )

    def _step_values(self, pairs: PairScores) -> dict[str, Any]:
        if not self._has_baseline:
            return {}
        self._baseline = self._baseline.to(pairs.chosen_logps.device)
        return {"reward_baseline": self._baseline.value}

    @torch.no_grad()
    def _shadow_metrics(
        self, pairs: PairScores, denominators: Mapping[str, float], values: Mapping[str, Any]
    ) -> dict[str, SumAndCount]:
        if self.shadows is None:
            return {}
        _, terms = self.shadows.total(pairs, denominators, values)
        return {name.replace("loss/", "shadow/", 1): metric for name, metric in terms.items()}


def places(batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Which completion each counted token belongs to, and its place in it."""
    return batch.completion_of, batch.offset_of


def weighted_logps(scores: CompletionScores, batch: MicroBatch, token_weights: Tensor | None) -> Tensor:
    """(completions,) sums of log-probabilities, nats, each token multiplied by its weight where there are weights."""
    return scores.logps if token_weights is None else sum_by_completion(scores.token_logps * token_weights, batch)


def token_metrics(scores: CompletionScores, batch: MicroBatch) -> dict[str, SumAndCount]:
    """Entropy over all counted tokens and accuracy over the chosen ones, where the scorer was asked for them."""
    if scores.entropies is None or scores.correct is None:
        return {}
    is_chosen = (batch.completion_of % 2 == 0).to(scores.correct.dtype)
    return {
        "entropy": (scores.entropies.sum(), batch.num_counted.sum()),
        "mean_token_accuracy": ((scores.correct * is_chosen).sum(), is_chosen.sum()),
    }


class DPOTrainer(Trainer):
    """`DPOTrainer(model, ref_model, args, train_dataset, eval_dataset, processing_class, peft_config, callbacks)`."""

    config_type = DPOConfig
    kind: ClassVar[GroupKind] = "preference"

    def build_method(self) -> Method:
        return PreferenceMethod(self.args)
