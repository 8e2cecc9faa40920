"""What the engine asks of a method: its loss, what the loss is divided by, and what a whole step must know first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.data.store import GroupStore
from burnish.engine.columns import refuse_unused_columns
from burnish.engine.metrics import SumAndCount
from burnish.models.load import load_policy
from burnish.scoring.head import HeadExtras
from burnish.scoring.scorer import Scorer
from burnish.scoring.scores import CompletionScores


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A micro-batch, and what policy and reference say of it."""

    batch: MicroBatch
    scores: CompletionScores
    """Of the policy."""
    reference: CompletionScores | None
    """None where the method needs none."""


@dataclass(frozen=True, slots=True)
class MicroBatchLoss:
    """One micro-batch's share of the step's loss, and its metrics."""

    loss: Tensor
    """Scalar; the shares of a step's micro-batches add up to its loss."""
    metrics: dict[str, SumAndCount]
    statistics: Tensor | None = None
    """What the method's running state takes in: summed over the step's micro-batches and ranks, then handed to
    `advance`. No gradient; one shape for all micro-batches. In evaluation it is dropped."""
    extremes: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars whose least (`min_…`) or greatest (`max_…`) over the interval is logged."""


@dataclass(frozen=True, slots=True, eq=False)
class StepPart:
    """What a micro-batch's loss is told of its whole step."""

    value: Any
    """What `CoupledMethod.couple` gave."""
    rows: Tensor
    """(groups,) int64, on the device: where the micro-batch's groups stand among those of the step."""


class Method(ABC):
    """A training method: objective and metrics, as functions of scores. Groups do not depend on each other."""

    name: ClassVar[str]
    needs_reference: bool = False
    scores_other_groups: bool = False
    """Whether `coupled_groups` makes groups that the data does not hold: the reference model then stays loaded."""
    has_closed_start: bool = False
    """Whether the loss depends on differences from the reference alone, so that its value at the start is known."""

    def load_policy(self, config: Any, *, pad_id: int) -> nn.Module:
        """Load the model that the settings name, on the CPU, in train mode."""
        return load_policy(config, hub=config.hub)

    def build_scorer(self, model: nn.Module, *, token_metrics: bool) -> Scorer:
        """Make the scorer of the policy that gives what `loss` reads."""
        return Scorer(model, extras=HeadExtras(token_metrics=token_metrics))

    def see_data(self, groups: GroupStore) -> None:
        """Look at all training groups once, before anything is loaded."""
        return

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """Metrics of an interval or an evaluation, with those that follow from the means of others."""
        return dict(means)

    def check_rows(self, groups: GroupStore) -> None:
        """Raise ConfigError or DataError for columns that the method would ignore, or would need."""
        refuse_unused_columns(self.name, groups)

    @abstractmethod
    def denominators(self, groups: Sequence[PromptGroup]) -> dict[str, float]:
        """Count what each term of the loss is divided by, over all groups of a step (or of an evaluation)."""

    @abstractmethod
    def loss(self, scored: Scored, denominators: Mapping[str, float], step: StepPart | None = None) -> MicroBatchLoss:
        """Compute a micro-batch's share of the loss, divided by the step's counts.

        Args:
            scored: the micro-batch, and what policy and reference say of it.
            denominators: counts of the whole step.
            step: what a CoupledMethod's `couple` gave; None where nothing couples the step.
        """

    def advance(self, value: Any, statistics: Tensor | None) -> None:
        """Bring running state up to date after a training step.

        Args:
            value: what a CoupledMethod's `couple` gave for the step, or None.
            statistics: sum of the micro-batches' statistics over the step and all ranks, or None.
        """
        return

    def set_progress(self, share: float) -> None:
        """Take note of the share of the run's optimizer steps that are done, in [0, 1], for what follows a schedule."""
        return

    def state_tensors(self) -> dict[str, Tensor]:
        """Running state by name, for the checkpoint; empty for most."""
        return {}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        return

    def describe(self) -> str:
        """The objective and its settings in one line, for the plan."""
        return self.name


class CoupledMethod(Method):
    """A method whose loss of one group may depend on the others of the step (AOT, KTO's z, β-DPO).

    It says in `coupled_groups` whose scores it needs first. The engine scores those without gradient, puts
    `coupling_row` of each into a table, over all ranks and in the step's order, calls `couple` once, and hands the
    answer to `loss` with every micro-batch. In evaluation all held-out groups are one step.
    """

    @abstractmethod
    def coupled_groups(self, groups: Sequence[PromptGroup]) -> Sequence[PromptGroup]:
        """Name the groups whose scores the loss of a step needs before its first backward pass; may be none.

        Args:
            groups: of the whole step, over all ranks, in its order. Giving back this very object asks for their own
                scores; others (KTO's mismatched completions) are made here.
        """

    @abstractmethod
    def coupling_row(self, scored: Scored) -> Tensor:
        """(groups, columns) what `couple` needs of each group; called without gradient."""

    @abstractmethod
    def couple(self, table: Tensor, denominators: Mapping[str, float]) -> Any:
        """From the rows of all coupled groups, in their order, to what the losses of the step's micro-batches need."""
