"""The first step begun before all rows are known: its gradients, kept aside until the step is taken.

Besides gradients a step leaves random states, the reference's log-probabilities and metrics. All of it is taken out of
the run again, so that whatever comes before the step finds the run as it would be without; and it is put in where the
step turns out to be the one that was begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from burnish.data.groups import PromptGroup
from burnish.data.store import GroupStore
from burnish.device.pick import Device
from burnish.device.rng import RngMark
from burnish.engine.cut import Cut
from burnish.engine.memory_retry import train_within_memory
from burnish.engine.metrics import MetricSums
from burnish.engine.passes import Passes, StartCheck, TrainedStep


@dataclass(slots=True, eq=False)
class BegunStep:
    """Gradients of a step that is not taken yet, and all that they depend on."""

    groups: tuple[PromptGroup, ...]
    cut: Cut
    trained: TrainedStep
    sums: MetricSums
    device: Device
    _gradients: list[tuple[nn.Parameter, Tensor]]
    _versions: list[int]
    """How often each parameter of the policy had been written to."""
    _reference: dict[bytes, Tensor]
    """What the reference said, by completion."""
    _known: int
    """Completions that the reference's store knew."""
    _before: RngMark
    _after: RngMark

    def take_up(self, passes: Passes, groups: Sequence[PromptGroup]) -> bool:
        """Bring the run to where computing the step would, if this is the step that was begun.

        Returns:
            Whether it is; where not, nothing has changed, and the step is to be computed.
        """
        if not self._is(passes, groups):
            return False
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        if passes.reference is not None:
            passes.reference.put_pending(self._reference)
        passes.at_start = None  # it has seen the step's first micro-batch
        self._after.put_back()
        return True

    def _is(self, passes: Passes, groups: Sequence[PromptGroup]) -> bool:
        is_same_run = (
            self.cut == passes.cut
            and self._before.stands_as(RngMark.take(self.device))
            and self._versions == _versions(passes.scorer)
            and self._known == _known(passes)
            and passes.scorer.training
        )
        return is_same_run and equal_groups(self.groups, groups)


def begin_step(passes: Passes, groups: Sequence[PromptGroup], device: Device, at_start: StartCheck | None) -> BegunStep:
    """Compute the gradients of a run's first step, and take all that it did out of the run again.

    Args:
        passes: of the run, whose weights have not moved.
        groups: of the step, in its order.
        device: of the run.
        at_start: as in Passes.

    Raises:
        DoesNotFit, NumericsError: as Passes.train; gradients may then be left.
    """
    passes.scorer.train()
    passes.at_start = at_start
    passes.method.set_progress(0.0)
    known, versions, before = _known(passes), _versions(passes.scorer), RngMark.take(device)
    sums = MetricSums()
    trained = passes.train(range(len(groups)), groups, passes.method.denominators(groups), sums)
    after = RngMark.take(device)
    before.put_back()
    said = {} if passes.reference is None else passes.reference.take_pending()
    gradients = _take_gradients(passes.scorer)
    return BegunStep(tuple(groups), passes.cut, trained, sums, device, gradients, versions, said, known, before, after)


def compute_step(
    passes: Passes, begun: BegunStep | None, indices: Sequence[int], groups: Sequence[PromptGroup]
) -> tuple[TrainedStep, MetricSums]:
    """Gradients of a step and its sums: those that were begun where they are this step's, else computed now.

    Raises:
        OutOfMemoryError: a single group does not fit.
    """
    if begun is not None and begun.take_up(passes, groups):
        return begun.trained, begun.sums
    return train_within_memory(passes, indices, groups, passes.method.denominators(groups))


def equal_groups(some: Sequence[PromptGroup], others: Sequence[PromptGroup]) -> bool:
    """Whether groups are the same rows with the same content, in the same order."""
    places = [[(group.source, group.row, group.number) for group in groups] for groups in (some, others)]
    if places[0] != places[1]:
        return False
    return GroupStore.from_groups(some).fingerprint == GroupStore.from_groups(others).fingerprint


def _take_gradients(scorer: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    taken = [(parameter, parameter.grad) for parameter in scorer.parameters() if parameter.grad is not None]
    scorer.zero_grad(set_to_none=True)
    return taken


def _versions(scorer: nn.Module) -> list[int]:
    return [parameter._version for parameter in scorer.parameters()]


def _known(passes: Passes) -> int:
    return 0 if passes.reference is None else len(passes.reference.store)
