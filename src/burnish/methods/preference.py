"""The glue of paired preferences: scores of a micro-batch in, its share of the loss and metrics out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.engine.method import Method, MicroBatchLoss
from burnish.engine.metrics import SumAndCount
from burnish.methods.dpo import DPOConfig, DPOSettings
from burnish.methods.trainer import Trainer
from burnish.objectives.combine import Combination
from burnish.objectives.metrics import preference_metrics
from burnish.objectives.scores import PairScores
from burnish.scoring.scores import CompletionScores


class PreferenceMethod:
    """`burnish dpo`: pairs, any combination of paired objectives."""

    name = "dpo"

    def __init__(self, settings: DPOSettings) -> None:
        self.combination = Combination(
            settings.loss_type,
            settings.loss_weights,
            {"beta": settings.beta, "label_smoothing": settings.label_smoothing},
        )
        self.needs_reference = self.combination.needs_reference
        self.has_closed_start = all(
            term.objective.needs_reference and term.objective.denominator == "pairs" for term in self.combination.terms
        )

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
    ) -> MicroBatchLoss:
        """Objectives on the pairs of a micro-batch, divided by the step's counts."""
        pairs = PairScores.from_completions(
            scores.logps,
            None if reference is None else reference.logps,
            batch.num_counted,
            weight=batch.weight,
            margin=batch.margin,
        )
        loss, terms = self.combination.total(pairs, denominators)
        chosen_rewards, rejected_rewards = self.combination.rewards(pairs)
        metrics = preference_metrics(pairs, chosen_rewards, rejected_rewards, scores.mean_logit_sums)
        if len(terms) > 1:
            metrics |= terms
        return MicroBatchLoss(loss, metrics | token_metrics(scores, batch))


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
