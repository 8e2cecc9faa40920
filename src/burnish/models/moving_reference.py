"""A reference that follows the policy (TR-DPO, 2404.09656), whose scores no cache may answer once it has moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from burnish.data.groups import PromptGroup
from burnish.errors import ConfigError, IntegrityError
from burnish.models.adapters import POLICY, REFERENCE
from burnish.models.cached_reference import CachedReference
from burnish.models.logp_store import LogpStore
from burnish.models.reference import AdapterOffReference, FrozenReference
from burnish.objectives.moving_reference import is_due, mix


class MovingReference(CachedReference):
    """π_ref ← α π + (1-α) π_ref every so many optimizer steps; the reference model stays in memory for the whole run.

    Until the first move the cache of the start answers; each move begins an empty one, in memory.
    """

    def __init__(self, start: CachedReference, policy: nn.Module, *, alpha: float, every: int) -> None:
        """Take over a reference that stands still.

        Args:
            start: with a live provider.
            policy: the trained model, with an adapter or without.
            alpha: α in (0, 1]; 1 copies.
            every: optimizer steps between moves, ≥ 1.

        Raises:
            ConfigError: the reference is another architecture than the policy.
        """
        super().__init__(start.live, start.store, starts_as_policy=start.starts_as_policy)
        self.alpha = alpha
        self.every = every
        self.has_moved = False
        self._pairs = _parameter_pairs(policy, start.live)

    def after_step(self, step: int) -> None:
        """Move where optimizer step `step` (from 1) is one to move at."""
        if is_due(step, every=self.every):
            self.flush()
            with torch.no_grad():
                for policy, reference in self._pairs.values():
                    reference.copy_(mix(policy, reference, alpha=self.alpha))
            self._forget()

    def covers(self, groups: Iterable[PromptGroup]) -> bool:
        """Never: what is known now will not be true of the reference later."""
        return False

    def state_tensors(self) -> dict[str, Tensor]:
        """The reference's weights by name, once they have moved."""
        return {name: reference.detach() for name, (_, reference) in self._pairs.items()} if self.has_moved else {}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's weights; none says that the reference had not moved.

        Raises:
            IntegrityError: they are another model's.
        """
        if not tensors:
            return
        if tensors.keys() != self._pairs.keys():
            raise IntegrityError("the checkpoint's reference has other weights than this model; start a new run")
        with torch.no_grad():
            for name, (_, reference) in self._pairs.items():
                reference.copy_(tensors[name])
        self._forget()

    def _forget(self) -> None:
        self.has_moved = True
        self.starts_as_policy = False
        self.store = LogpStore(None, self.store.identity)


def _parameter_pairs(policy: nn.Module, live: object) -> dict[str, tuple[Tensor, Tensor]]:
    """Each of the policy's parameters that trains, with the reference's of the same place, by name."""
    named = dict(policy.named_parameters())
    if isinstance(live, AdapterOffReference):
        twins = {name: _twin(name) for name, parameter in named.items() if parameter.requires_grad}
        return {name: (named[name], named[twin]) for name, twin in twins.items()}
    assert isinstance(live, FrozenReference)
    reference = dict(live.scorer.model.named_parameters())
    shapes = {name: parameter.shape for name, parameter in named.items()}
    if shapes != {name: parameter.shape for name, parameter in reference.items()}:
        raise ConfigError("sync_ref_model mixes policy and reference, which must be of one architecture: leave it out")
    return {name: (parameter, reference[name]) for name, parameter in named.items() if parameter.requires_grad}


def _twin(name: str) -> str:
    """The name of an adapter's parameter in the copy that is the reference."""
    parts = name.split(".")
    place = len(parts) - 1 - parts[::-1].index(POLICY)
    return ".".join([*parts[:place], REFERENCE, *parts[place + 1 :]])
