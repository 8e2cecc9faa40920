"""The reference scored before the first step, for all that the run will ask of it, so that its memory is free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from burnish.batching.sampler import StepSampler
from burnish.console import progress
from burnish.data.groups import PromptGroup
from burnish.engine.coupling import find_coupling
from burnish.engine.memory_retry import within_memory
from burnish.engine.passes import Passes


def precompute_reference(
    passes: Passes,
    groups: Sequence[PromptGroup],
    held_out: Sequence[Sequence[PromptGroup]],
    sampler: StepSampler,
    *,
    total_steps: int,
) -> None:
    """Let the reference score all groups, cut as the first epoch will cut them, and free its memory.

    Coming in the same company as in training, its values are those that training would have got. Where a method scores
    others than a step's own groups (KTO's mismatched completions), every step of the run has its own others.

    Args:
        passes: of the run.
        groups: to train on.
        held_out: the sets to evaluate on.
        sampler: which groups make a step.
        total_steps: of the run.
    """
    reference = passes.reference
    if reference is None or reference.live is None:
        return
    has_others = passes.method.scores_other_groups
    num_steps = max(sampler.steps_per_epoch, total_steps) if has_others else sampler.steps_per_epoch
    with progress("scoring the reference", total=num_steps, unit="steps") as advance:
        for step in range(num_steps):
            indices = [int(index) for index in sampler.groups_of(step)]
            members = [groups[index] for index in indices]
            if step < sampler.steps_per_epoch:
                _score(passes, indices, members)
            _score_others(passes, indices, members)
            advance()
    for one in held_out:
        _score(passes, range(len(one)), one)
        _score_others(passes, range(len(one)), one)
    reference.unload()


def _score(passes: Passes, indices: Sequence[int], groups: Sequence[PromptGroup]) -> None:
    nobody: Callable[[int], None] = lambda _: None  # noqa: E731
    within_memory(passes, partial(passes.score_reference, indices, groups, nobody))


def _score_others(passes: Passes, indices: Sequence[int], groups: Sequence[PromptGroup]) -> None:
    """Score the groups that a step of these asks for besides."""
    coupling = find_coupling(passes.method, indices, groups) if passes.method.scores_other_groups else None
    if coupling is not None and not coupling.is_own:
        _score(passes, range(len(coupling.groups)), coupling.groups)
