"""The glue of labelled completions: their scores in, a micro-batch's share of the loss and metrics out; the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.console import notice
from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind
from burnish.data.store import GroupStore
from burnish.engine.method import CoupledMethod, Method, MicroBatchLoss, Scored, StepPart
from burnish.engine.metrics import token_metrics
from burnish.errors import DataError
from burnish.methods.comparing import ComparingTrainer
from burnish.methods.kto import KTOConfig, KTOSettings
from burnish.objectives.health import unpaired_health
from burnish.objectives.running import RewardBaseline
from burnish.objectives.unpaired import (
    UNPAIRED,
    UnpairedScores,
    add_margins,
    balanced_desirable_weight,
    kl_reward,
    mismatched_rows,
    unpaired_metrics,
)
from burnish.scoring.scores import CompletionScores


class UnpairedMethod(CoupledMethod):
    """`burnish kto`: one completion a prompt, desirable or not."""

    name = "kto"
    needs_reference = True
    has_closed_start = True

    def __init__(self, settings: KTOSettings) -> None:
        self.settings = settings
        self.objective = UNPAIRED[settings.loss_type]
        self.scores_other_groups = self.objective.needs_mismatched
        self.desirable_weight = 1.0 if settings.desirable_weight is None else settings.desirable_weight
        self.baseline = RewardBaseline.start()
        self._rows: Sequence[PromptGroup] = ()

    def describe(self) -> str:
        settings = self.settings
        weights = f"weights {self.desirable_weight:g} desirable, {settings.undesirable_weight:g} undesirable"
        cost = "; one more completion a row is scored, for the KL term" if self.scores_other_groups else ""
        return f"{settings.loss_type}; beta {settings.beta:g}; {weights}{cost}"

    def see_data(self, groups: GroupStore) -> None:
        """Balance the labels, where their weights are not given; remember the rows, for steps of a single prompt."""
        self._rows = groups
        labels = groups.labels
        desirable, undesirable = int(labels.sum()), int((~labels).sum())
        if self.settings.desirable_weight is None:
            self.desirable_weight = balanced_desirable_weight(
                desirable, undesirable, undesirable_weight=self.settings.undesirable_weight
            )
            if self.desirable_weight != 1.0:
                balance = f"{desirable:,} desirable and {undesirable:,} undesirable rows"
                notice(f"{balance}: desirable_weight {self.desirable_weight:.4g} balances them")

    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Rows of a whole step."""
        return {"rows": float(len(groups))}

    def coupled_groups(self, groups: Sequence[PromptGroup]) -> Sequence[PromptGroup]:
        """Each row's prompt with another row's completion, for the KL term."""
        if not self.objective.needs_mismatched:
            return ()
        prompts = [group.prompt_ids.tobytes() for group in groups]
        if len(set(prompts)) == 1:
            return [_with_completion(group, self._row_of_another_prompt(group)) for group in groups]
        others = mismatched_rows(prompts)
        return [_with_completion(group, groups[other]) for group, other in zip(groups, others, strict=True)]

    def _row_of_another_prompt(self, group: PromptGroup) -> PromptGroup:
        """A training row, the same one for a group in every epoch: for steps whose rows all have its prompt.

        Raises:
            DataError: all training rows have this prompt.
        """
        count, prompt = len(self._rows), group.prompt_ids.tobytes()
        others = (self._rows[(group.row + place) % count] for place in range(count))
        found = next((other for other in others if other.prompt_ids.tobytes() != prompt), None)
        if found is None:
            mismatched_rows([prompt])  # says why that cannot be, and the cure
        assert found is not None
        return found

    def coupling_row(self, scored: Scored) -> Tensor:
        """(rows, 1) log π - log π_ref of the mismatched completions."""
        return (scored.scores.logps - _given(scored.reference).logps)[:, None]

    def couple(self, table: Tensor, denominators: Mapping[str, float]) -> Tensor:
        """KTO's z of the step."""
        return kl_reward(table[:, 0], beta=self.settings.beta)

    def loss(self, scored: Scored, denominators: Mapping[str, float], step: StepPart | None = None) -> MicroBatchLoss:
        """Losses of the rows, weighed and divided by the step's rows; without a step, z is 0, as at the start."""
        scores, batch = scored.scores, scored.batch
        rows = _unpaired(scores, scored.reference, batch)
        kl = torch.zeros_like(rows.logps[0]) if step is None else step.value
        losses = self.objective.function(rows, **self._values(kl))
        rewards = self.settings.beta * rows.logratio.detach()
        metrics = unpaired_metrics(rows, rewards, scores.mean_logit_sums) | unpaired_health(rows, rewards)
        count = metrics["rewards/accuracies"][1]
        if self.objective.needs_mismatched:
            metrics["kl"] = (kl / self.settings.beta * count, count)
        loss = (rows.weight * losses).sum() / denominators["rows"]
        statistics = torch.stack([*metrics["rewards/chosen"], *metrics["rewards/rejected"]])
        return MicroBatchLoss(loss, metrics | token_metrics(scores, batch), statistics)

    def _values(self, kl: Tensor) -> dict[str, Any]:
        values: dict[str, Any] = {
            "beta": self.settings.beta,
            "desirable_weight": self.desirable_weight,
            "undesirable_weight": self.settings.undesirable_weight,
        }
        if self.objective.needs_mismatched:
            values["kl_reward"] = kl
        if self.objective.uses_reward_baseline:
            values["reward_baseline"] = self.baseline.to(kl.device).value
        return values

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """`rewards/margins`, which is a difference of means: chosen and rejected rows are not paired."""
        return add_margins(means)

    def advance(self, value: Any, statistics: Tensor | None) -> None:
        """Take a step's rewards into BCO's δ."""
        if statistics is not None and self.objective.uses_reward_baseline:
            good, num_good, bad, num_bad = statistics.unbind()
            self.baseline = self.baseline.to(statistics.device).after((good, num_good), (bad, num_bad))

    def state_tensors(self) -> dict[str, Tensor]:
        """BCO's δ."""
        uses = self.objective.uses_reward_baseline
        return {"sums": self.baseline.sums, "counts": self.baseline.counts} if uses else {}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's δ."""
        if tensors:
            self.baseline = RewardBaseline(tensors["sums"], tensors["counts"])


def _with_completion(group: PromptGroup, other: PromptGroup) -> PromptGroup:
    """A group's prompt with another's completion."""
    return replace(group, completion_ids=other.completion_ids, completion_mask=other.completion_mask)


def _given(reference: CompletionScores | None) -> CompletionScores:
    assert reference is not None, "every objective of labelled completions compares with a reference"
    return reference


def _unpaired(scores: CompletionScores, reference: CompletionScores | None, batch: MicroBatch) -> UnpairedScores:
    if batch.is_desirable is None:
        raise DataError("the rows have no label: give each label true or false, or preference pairs")
    return UnpairedScores(
        logps=scores.logps,
        ref_logps=_given(reference).logps.detach(),
        num_tokens=batch.num_counted,
        is_desirable=batch.is_desirable.to(scores.logps.dtype),
        weight=batch.weight,
    )


class KTOTrainer(ComparingTrainer):
    """`KTOTrainer(model, ref_model, args, None, train_dataset, eval_dataset, processing_class, ...)`."""

    config_type = KTOConfig
    kind: ClassVar[GroupKind] = "unpaired"

    def build_method(self) -> Method:
        return UnpairedMethod(self.args)
