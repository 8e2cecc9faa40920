"""The glue of preferences: scores of a micro-batch in, its share of the loss and metrics out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.data.store import GroupStore
from burnish.engine.method import CoupledMethod, Method, MicroBatchLoss, Scored, StepPart
from burnish.engine.metrics import SumAndCount, token_metrics
from burnish.methods.comparing import ComparingTrainer
from burnish.methods.dpo import DPOConfig, DPOSettings, objective_values
from burnish.methods.pairs import PairReader, chosen_weight, need_columns, of_best, refuse_lists, refuse_ties
from burnish.objectives.checks import check_columns
from burnish.objectives.combine import Combination, CoupledStep
from burnish.objectives.health import preference_health
from burnish.objectives.metrics import preference_metrics
from burnish.objectives.running import Beta, RewardBaseline
from burnish.objectives.scores import PairScores
from burnish.scoring.head import HeadExtras
from burnish.scoring.scorer import Scorer


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceStep:
    """What a micro-batch's loss is told of its step."""

    coupled: CoupledStep | None
    beta: Tensor | None
    """The step's β where it follows the step's margin."""
    mean_margin: Tensor | None
    """M0 after the step."""


class PreferenceMethod(CoupledMethod):
    """`burnish dpo`: pairs, any combination of paired objectives."""

    name = "dpo"

    def __init__(self, settings: DPOSettings) -> None:
        self.settings = settings
        values = objective_values(settings)
        self.reader = PairReader(settings.label_smoothing, settings.ld_alpha, settings.reference_free)
        self.beta = Beta(values["beta"], settings.beta_final, settings.beta_schedule, settings.beta_dpo_alpha)
        self.combination = Combination(settings.loss_type, settings.loss_weights, values)
        self.shadows = Combination(settings.shadow_losses, None, values) if settings.shadow_losses else None
        self.needs_reference = self.combination.needs_reference and not settings.reference_free
        self.couples = self.combination.needs_step_scores or self.beta.follows_margin
        self.has_closed_start = self.combination.is_closed and not self.couples
        self._baseline = RewardBaseline.start()

    def build_scorer(self, model: nn.Module, *, token_metrics: bool) -> Scorer:
        extras = HeadExtras(token_metrics=token_metrics, log_sum_squares=self.settings.use_weighting)
        return Scorer(model, extras=extras, scores_prompts=self.settings.orpo_nll_on_prompt)

    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Pairs (a list is one), and counted tokens of the chosen completions (and their prompts), of a whole step."""
        chosen_tokens = sum(chosen_weight(group) for group in groups)
        counts = {"pairs": float(len(groups)), "chosen_tokens": chosen_tokens}
        if self.settings.orpo_nll_on_prompt:
            prompt_tokens = sum(max(0, len(group.prompt_ids) - 1) for group in groups)  # nothing predicts the first
            counts["chosen_and_prompt_tokens"] = chosen_tokens + prompt_tokens
        return counts

    def check_rows(self, groups: GroupStore) -> None:
        """Refuse rows with columns that the objective ignores, or without those that it needs."""
        types, settings = self.settings.loss_type, self.settings
        columns = [name for name in ("margin", "label_smoothing") if groups.has(name)]
        check_columns(types, columns, weighted=groups.is_weighted, shadows=settings.shadow_losses)
        need_columns(groups, [*types, *settings.shadow_losses])
        for name in self.combination.list_terms:
            refuse_ties(groups, name)
        of_pairs = {
            "margin": groups.has("margin"),
            "ld_alpha": settings.ld_alpha is not None,
            "use_weighting": settings.use_weighting,
            "orpo_nll_on_prompt": settings.orpo_nll_on_prompt,
            "beta_dpo_alpha": self.beta.follows_margin,
            "an objective that couples the step": self.combination.needs_step_scores,
        }
        refuse_lists(groups, [name for name, is_given in of_pairs.items() if is_given])

    def loss(self, scored: Scored, denominators: Mapping[str, float], step: StepPart | None = None) -> MicroBatchLoss:
        """Objectives on the pairs of a micro-batch, divided by the step's counts."""
        scores, reference, batch = scored.scores, scored.reference, scored.batch
        pairs = self.reader.pairs(scores, reference, batch)
        told: PreferenceStep | None = None if step is None else step.value
        values = self._step_values(pairs, told)
        coupled = None if step is None or told is None or told.coupled is None else told.coupled.select(step.rows)
        lists = {name: self.reader.lists(scores, reference, batch, name) for name in self.combination.list_terms}
        loss, terms = self.combination.total(pairs, denominators, values, coupled=coupled, lists=lists)
        rewards = self.combination.rewards(pairs, values)
        metrics = preference_metrics(pairs, *rewards, *self.reader.logit_sums(scores, batch))
        metrics |= preference_health(pairs, *rewards, saturates=self.combination.saturates)
        if len(terms) > 1:
            metrics |= terms
        if self.beta.moves:
            count = metrics["rewards/chosen"][1]
            metrics["beta"] = (values["beta"] * count, count)
        metrics |= self._shadow_metrics(pairs, denominators, values)
        statistics = torch.stack([*metrics["rewards/chosen"], *metrics["rewards/rejected"]])
        metrics |= token_metrics(scores, batch, accuracy_of=of_best(batch))
        return MicroBatchLoss(loss, metrics, statistics if self._has_baseline else None)

    def coupled_groups(self, groups: Sequence[PromptGroup]) -> Sequence[PromptGroup]:
        """The step's own pairs, where an objective or β's rule couples them."""
        return groups if self.couples else ()

    def coupling_row(self, scored: Scored) -> Tensor:
        """(pairs, columns) log-probabilities and token counts."""
        return self.reader.pairs(scored.scores, scored.reference, scored.batch).as_table()

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


class DPOTrainer(ComparingTrainer):
    """`DPOTrainer(model, ref_model, args, None, train_dataset, eval_dataset, processing_class, ...)`."""

    config_type = DPOConfig
    kind: ClassVar[GroupKind] = "preference"

    def build_method(self) -> Method:
        return PreferenceMethod(self.args)
