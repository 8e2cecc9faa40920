"""The glue of supervised tuning: token scores of a micro-batch in, its share of the loss out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.engine.method import Method, MicroBatchLoss, Scored, StepPart
from burnish.engine.metrics import token_metrics
from burnish.methods.sft import SFTConfig, SFTSettings
from burnish.methods.trainer import Trainer
from burnish.objectives.supervised import SUPERVISED, smoothed_loss, z_loss
from burnish.scoring.head import HeadExtras
from burnish.scoring.scorer import Scorer
from burnish.scoring.scores import CompletionScores


class SupervisedMethod(Method):
    """`burnish sft`: one completion a prompt, a loss a counted token."""

    name = "sft"

    def __init__(self, settings: SFTSettings) -> None:
        self.settings = settings

    def describe(self) -> str:
        settings = self.settings
        parts = [settings.loss_type]
        if settings.label_smoothing_factor:
            parts.append(f"label smoothing {settings.label_smoothing_factor:g}")
        if settings.z_loss_coef:
            parts.append(f"{settings.z_loss_coef:g} x z-loss")
        if settings.neftune_noise_alpha:
            parts.append(f"NEFTune noise {settings.neftune_noise_alpha:g}")
        return "; ".join(parts)

    def build_scorer(self, model: nn.Module, *, token_metrics: bool) -> Scorer:
        normalizers = bool(self.settings.label_smoothing_factor or self.settings.z_loss_coef)
        extras = HeadExtras(token_metrics=token_metrics, normalizers=normalizers)
        return Scorer(model, extras=extras, neftune_noise_alpha=self.settings.neftune_noise_alpha)

    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Counted tokens of a whole step."""
        return {"tokens": float(max(1, sum(group.num_counted_tokens for group in groups)))}

    def loss(self, scored: Scored, denominators: Mapping[str, float], step: StepPart | None = None) -> MicroBatchLoss:
        """Losses of the counted tokens, weighed by their rows and divided by the step's count of tokens."""
        scores, batch = scored.scores, scored.batch
        weights = batch.weight.index_select(0, batch.completion_of)
        total = (self._token_losses(scores) * weights).sum() / denominators["tokens"]
        return MicroBatchLoss(total, token_metrics(scores, batch))

    def _token_losses(self, scores: CompletionScores) -> Tensor:
        """(counted,) losses."""
        settings = self.settings
        losses = SUPERVISED[settings.loss_type](scores.token_logps)
        if scores.mean_logps is not None and settings.label_smoothing_factor:
            losses = smoothed_loss(losses, scores.mean_logps, label_smoothing=settings.label_smoothing_factor)
        if scores.log_normalizers is not None and settings.z_loss_coef:
            losses = losses + settings.z_loss_coef * z_loss(scores.log_normalizers)
        return losses


class SFTTrainer(Trainer):
    """`SFTTrainer(model, args, None, train_dataset, eval_dataset, processing_class, ...)`."""

    config_type = SFTConfig
    kind: ClassVar[GroupKind] = "sft"

    def build_method(self) -> Method:
        return SupervisedMethod(self.args)
