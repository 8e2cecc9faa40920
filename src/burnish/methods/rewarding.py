"""The glue of reward models: rewards of a micro-batch in, its share of the loss and metrics out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.engine.method import Method, MicroBatchLoss, Scored, StepPart
from burnish.engine.metrics import SumAndCount
from burnish.methods.pairs import label_smoothing_of
from burnish.methods.reward import RewardConfig, RewardSettings
from burnish.methods.trainer import Trainer
from burnish.models.reward import RewardScorer, load_reward_model
from burnish.objectives.health import length_sums
from burnish.objectives.lists import ranked_pairs
from burnish.objectives.reward import bradley_terry_loss, reward_extremes, reward_metrics
from burnish.scoring.scorer import Scorer


class RewardMethod(Method):
    """`burnish reward`: a scalar head on pairs or ranked lists."""

    name = "reward"

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings

    def describe(self) -> str:
        coefficient = self.settings.center_rewards_coefficient
        return "Bradley-Terry" + (f"; {coefficient:g} x centering" if coefficient else "")

    def load_policy(self, config: Any, *, pad_id: int) -> nn.Module:
        return load_reward_model(config, hub=config.hub, pad_id=pad_id)

    def build_scorer(self, model: nn.Module, *, token_metrics: bool) -> Scorer:
        return RewardScorer(model)

    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Rows of a whole step in which one completion ranks above another."""
        return {"rows": float(max(1, sum(len(set(_ranks(group))) > 1 for group in groups)))}

    def loss(self, scored: Scored, denominators: Mapping[str, float], step: StepPart | None = None) -> MicroBatchLoss:
        """Mean over each row's pairs, weighed by the row and divided by the step's rows."""
        batch = scored.batch
        chosen, rejected, rows = ranked_pairs([_ranks(group) for group in batch.groups])
        chosen, rejected, rows = (places.to(batch.weight.device) for places in (chosen, rejected, rows))
        rewards = scored.scores.given_rewards
        pair = (rewards.index_select(0, chosen), rewards.index_select(0, rejected))
        losses = bradley_terry_loss(
            *pair,
            margin=_of_pairs(batch.margin, rows),
            label_smoothing=_of_pairs(label_smoothing_of(batch, 0.0), rows),
            center_rewards_coefficient=self.settings.center_rewards_coefficient or 0.0,
        )
        per_row = torch.bincount(rows, minlength=len(batch.weight)).clamp(min=1).to(losses.dtype)
        weights = (batch.weight / per_row).index_select(0, rows)
        metrics = reward_metrics(*pair) | _by_length(*pair, batch.num_counted, chosen, rejected)
        lengths = batch.num_counted.index_select(0, chosen) - batch.num_counted.index_select(0, rejected)
        metrics |= length_sums(pair[0] - pair[1], lengths)
        least, greatest = reward_extremes(*pair) if len(rows) else (None, None)
        extremes = {} if least is None or greatest is None else {"min_reward": least, "max_reward": greatest}
        return MicroBatchLoss((weights * losses).sum() / denominators["rows"], metrics, extremes=extremes)


def _ranks(group: PromptGroup) -> Sequence[int]:
    return group.ranking or range(group.num_completions)


def _of_pairs(values: Tensor | None, rows: Tensor) -> Tensor | None:
    """(pairs,) a column of the rows."""
    return None if values is None else values.index_select(0, rows)


def _by_length(
    chosen_rewards: Tensor, rejected_rewards: Tensor, num_tokens: Tensor, chosen: Tensor, rejected: Tensor
) -> dict[str, SumAndCount]:
    """Accuracy on pairs whose chosen completion has fewer tokens, and more: length alone divides them into 0 and 1."""
    more = num_tokens.index_select(0, chosen) - num_tokens.index_select(0, rejected)
    right = (chosen_rewards > rejected_rewards).detach().to(chosen_rewards.dtype)
    groups = {"shorter": (more < 0).to(right.dtype), "longer": (more > 0).to(right.dtype)}
    return {f"accuracy/chosen_{name}": ((right * those).sum(), those.sum()) for name, those in groups.items()}


class RewardTrainer(Trainer):
    """`RewardTrainer(model, args, None, train_dataset, eval_dataset, processing_class, ...)`."""

    config_type = RewardConfig
    kind: ClassVar[GroupKind] = "ranking"

    def build_method(self) -> Method:
        return RewardMethod(self.args)
