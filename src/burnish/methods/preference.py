"""The glue of preferences: scores of a micro-batch in, its share of the loss and metrics out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.engine.method import Method, MicroBatchLoss, StepPart
from burnish.engine.metrics import SumAndCount, token_metrics
from burnish.methods.dpo import DPOConfig, DPOSettings, objective_values
from burnish.methods.trainer import Trainer
from burnish.objectives.combine import Combination, CoupledStep
from burnish.objectives.metrics import preference_metrics
from burnish.objectives.running import Beta, RewardBaseline
from burnish.objectives.scores import PairScores
from burnish.objectives.tokens import discount_weights, likelihood_weights
from burnish.scoring.head import HeadExtras
from burnish.scoring.scorer import Scorer
from burnish.scoring.scores import CompletionScores, weighted_logps


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceStep:
    """What a micro-batch's loss is told of its step."""

    coupled: CoupledStep | None
    beta: Tensor | None
    """The step's β where it follows the step's margin."""
    mean_margin: Tensor | None
    """M0 after the step."""


class PreferenceMethod(Method):
    """`burnish dpo`: pairs, any combination of paired objectives."""

    name = "dpo"

    def __init__(self, settings: DPOSettings) -> None:
        self.settings = settings
        values = objective_values(settings)
        self.beta = Beta(values["beta"], settings.beta_final, settings.beta_schedule, settings.beta_dpo_alpha)
        self.combination = Combination(settings.loss_type, settings.loss_weights, values)
        self.shadows = Combination(settings.shadow_losses, None, values) if settings.shadow_losses else None
        self.needs_reference = self.combination.needs_reference and not settings.reference_free
        self.couples = self.combination.needs_step_scores or self.beta.follows_margin
        self.has_closed_start = self.combination.loss_at_start() is not None and not self.couples
        self._baseline = RewardBaseline.start()

    def build_scorer(self, model: nn.Module, *, token_metrics: bool) -> Scorer:
        extras = HeadExtras(token_metrics=token_metrics, log_sum_squares=self.settings.use_weighting)
        return Scorer(model, extras=extras)

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
        told: PreferenceStep | None = None if step is None else step.value
        values = self._step_values(pairs, told)
        coupled = None if step is None or told is None or told.coupled is None else told.coupled.select(step.rows)
        loss, terms = self.combination.total(pairs, denominators, values, coupled=coupled)
        metrics = preference_metrics(pairs, *self.combination.rewards(pairs, values), scores.mean_logit_sums)
        if len(terms) > 1:
            metrics |= terms
        if self.beta.moves:
            count = metrics["rewards/chosen"][1]
            metrics["beta"] = (values["beta"] * count, count)
        metrics |= self._shadow_metrics(pairs, denominators, values)
        statistics = torch.stack([*metrics["rewards/chosen"], *metrics["rewards/rejected"]])
        is_chosen = (batch.completion_of % 2 == 0).to(scores.token_logps.dtype)
        metrics |= token_metrics(scores, batch, accuracy_of=is_chosen)
        return MicroBatchLoss(loss, metrics, statistics if self._has_baseline else None)

    def coupled_groups(self, groups: Sequence[PromptGroup]) -> Sequence[PromptGroup]:
        """The step's own pairs, where an objective or β's rule couples them."""
        return groups if self.couples else ()

    def coupling_row(self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch) -> Tensor:
        """(pairs, columns) log-probabilities and token counts."""
        return self._pairs(scores, reference, batch).as_table()

    def couple(self, table: Tensor, denominators: Mapping[str, float]) -> PreferenceStep:
        """β of the step, and the objectives that couple it, on all of its pairs."""
        pairs = PairScores.from_table(table, has_reference=self.combination.needs_reference)
        step = PreferenceStep(None, None, None)
        if self.beta.follows_margin:
            beta, mean_margin = self.beta.of_step(self.combination.score_differences(pairs))
            step = PreferenceStep(None, beta, mean_margin)
        if not self.combination.needs_step_scores:
            return step
        return replace(step, coupled=self.combination.couple(pairs, denominators, self._step_values(pairs, step)))

    def advance(self, value: Any, statistics: Tensor | None) -> None:
        """Take a step's rewards into BCO's δ, and its margin into β-DPO's mean."""
        if value is not None and value.mean_margin is not None:
            self.beta.running_margin = value.mean_margin
        if statistics is not None:
            chosen, chosen_count, rejected, rejected_count = statistics.unbind()
            baseline = self._baseline.to(statistics.device)
            self._baseline = baseline.after((chosen, chosen_count), (rejected, rejected_count))

    def set_progress(self, share: float) -> None:
        """Move β along its schedule."""
        self.beta.progress = share

    def state_tensors(self) -> dict[str, Tensor]:
        """BCO's δ and β-DPO's mean margin."""
        state = {"running_margin": self.beta.running_margin} if self.beta.follows_margin else {}
        if self._has_baseline:
            state |= {"baseline_sums": self._baseline.sums, "baseline_counts": self._baseline.counts}
        return state

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's state."""
        if self.beta.follows_margin:
            self.beta.running_margin = tensors["running_margin"]
        if self._has_baseline:
            self._baseline = RewardBaseline(tensors["baseline_sums"], tensors["baseline_counts"])

    def describe(self) -> str:
        """Terms with their weights, the settings that they use, and what they cost besides."""
        words = [self.combination.in_words(), *self.beta.in_words()]
        if self.settings.reference_free:
            words.append("the reference's log-probabilities taken for 0")
        if self.shadows is not None:
            words.append(f"logged only: {', '.join(term.name for term in self.shadows.terms)}")
        if self.couples:
            words.append("couples the step: one more policy forward where it has several micro-batches")
        return "; ".join(words)

    @property
    def _has_baseline(self) -> bool:
        shadows = self.shadows is not None and self.shadows.uses_reward_baseline
        return self.combination.uses_reward_baseline or shadows

    def _pairs(self, scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch) -> PairScores:
        weights = pair_weight = likelihood = None
        if self.settings.ld_alpha is not None:
            weights = discount_weights(
                batch.num_counted, batch.completion_of, batch.offset_of, ld_alpha=self.settings.ld_alpha
            )
            likelihood = scores.logps[0::2]
        if self.settings.use_weighting and scores.log_sum_squares is not None:
            pair_weight = likelihood_weights(
                scores.token_logps,
                scores.log_sum_squares,
                batch.completion_of,
                batch.offset_of,
                batch.num_counted,
                max_counted=batch.max_counted,
            )
        logps = weighted_logps(scores, batch, weights)
        ref_logps = torch.zeros_like(logps) if self.settings.reference_free else None
        if reference is not None:
            ref_logps = weighted_logps(reference, batch, weights)
        return PairScores.from_completions(
            logps,
            ref_logps,
            batch.num_counted,
            weight=batch.weight,
            margin=batch.margin,
            pair_weight=pair_weight,
            chosen_likelihood=likelihood,
        )

    def _step_values(self, pairs: PairScores, step: PreferenceStep | None) -> dict[str, Any]:
        values: dict[str, Any] = {"beta": self.beta.value if step is None or step.beta is None else step.beta}
        if self._has_baseline:
            self._baseline = self._baseline.to(pairs.chosen_logps.device)
            values["reward_baseline"] = self._baseline.value
        return values

    @torch.no_grad()
    def _shadow_metrics(
        self, pairs: PairScores, denominators: Mapping[str, float], values: Mapping[str, Any]
    ) -> dict[str, SumAndCount]:
        if self.shadows is None:
            return {}
        _, terms = self.shadows.total(pairs, denominators, values)
        return {name.replace("loss/", "shadow/", 1): metric for name, metric in terms.items()}


class DPOTrainer(Trainer):
    """`DPOTrainer(model, ref_model, args, train_dataset, eval_dataset, processing_class, peft_config, callbacks)`."""

    config_type = DPOConfig
    kind: ClassVar[GroupKind] = "preference"

    def build_method(self) -> Method:
        return PreferenceMethod(self.args)
