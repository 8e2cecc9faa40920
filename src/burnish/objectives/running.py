"""State that objectives carry from step to step, and values that follow from the step's number: pure functions.

State is small tensors on the device, so that updating it waits for nothing; it belongs into the checkpoint, and stays
as it is during evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

LEAST_SHARE_OF_BETA = 0.01
"""β-DPO's β never falls below this share of β0, as in its authors' code (0.001 at β0 = 0.1)."""


@dataclass(frozen=True, slots=True, eq=False)
class RewardBaseline:
    """BCO's δ: the mean reward of all completions of earlier steps, chosen and rejected weighted equally.

    Source: Jung et al. (BCO), 2404.04656, section 4, where δ is the mean over the two classes' means. While a class has
    not been seen, δ is the other's mean.
    """

    sums: Tensor
    """(2,) sums of chosen and of rejected rewards, nats."""
    counts: Tensor
    """(2,) how many there were."""

    @classmethod
    def start(cls, device: torch.device | None = None) -> RewardBaseline:
        """Before the first step, when δ is 0."""
        return cls(torch.zeros(2, device=device), torch.zeros(2, device=device))

    def to(self, device: torch.device) -> RewardBaseline:
        """The same state on a device."""
        return RewardBaseline(self.sums.to(device), self.counts.to(device))

    @property
    def value(self) -> Tensor:
        """δ, scalar."""
        seen = (self.counts > 0).to(self.sums.dtype)
        means = self.sums / self.counts.clamp(min=1)
        return (means * seen).sum() / seen.sum().clamp(min=1)

    def after(self, chosen: tuple[Tensor, Tensor], rejected: tuple[Tensor, Tensor]) -> RewardBaseline:
        """The state after a step, from (sum, count) of its chosen and rejected rewards over all ranks."""
        sums = torch.stack([chosen[0], rejected[0]]).detach().to(self.sums.dtype)
        counts = torch.stack([chosen[1], rejected[1]]).detach().to(self.counts.dtype)
        return RewardBaseline(self.sums + sums, self.counts + counts)


def beta_dpo(
    mean_margin: Tensor, running_mean: Tensor, *, beta: float, alpha: float, momentum: float = 0.9
) -> tuple[Tensor, Tensor]:
    """β-DPO: β = β0 (1 + α (mean M - M0)), M = β0·D of the step's pairs, M0 ← momentum·M0 + (1 - momentum)·mean M.

    As in the authors' code M0 is brought up to date first, and β is held at 0.01·β0 or more.

    Source: Wu et al. (β-DPO), 2407.08639; M carries β0 there, and not in their code.

    Args:
        mean_margin: mean M over the step's pairs, scalar, without gradient.
        running_mean: M0 before the step, scalar; 0 at the start. In evaluation, keep it afterwards.
        beta: β0, 1/nats, > 0.
        alpha: α ≥ 0; 0 keeps β at β0.
        momentum: in [0, 1).

    Returns:
        The step's β, scalar, and M0 after it.
    """
    updated = momentum * running_mean + (1 - momentum) * mean_margin.detach()
    scaled = beta * (1 + alpha * (mean_margin.detach() - updated))
    return scaled.clamp(min=LEAST_SHARE_OF_BETA * beta), updated


def scheduled_beta(
    progress: float, *, beta: float, final_beta: float, shape: Literal["linear", "cosine"] = "linear"
) -> float:
    """β on its way from beta to final_beta.

    Args:
        progress: share of the run's optimizer steps that are done, in [0, 1].
        beta: at progress 0, 1/nats, > 0.
        final_beta: at progress 1, 1/nats, > 0.
        shape: linear, or half a cosine wave (slow at both ends).
    """
    done = progress if shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return beta + (final_beta - beta) * done


@dataclass(slots=True, eq=False)
class Beta:
    """β of a run: constant, on a schedule, or following the step's margin (β-DPO)."""

    start: float
    """1/nats, > 0."""
    final: float | None = None
    shape: Literal["linear", "cosine"] = "linear"
    alpha: float | None = None
    """β-DPO's α; None does not follow the margin."""
    progress: float = 0.0
    """Share of the run's optimizer steps that are done."""
    running_margin: Tensor = field(default_factory=lambda: torch.zeros(()))
    """β-DPO's M0; in the checkpoint."""

    @property
    def follows_margin(self) -> bool:
        return self.alpha is not None

    @property
    def moves(self) -> bool:
        return self.follows_margin or self.final is not None

    @property
    def value(self) -> float:
        """β where the step's margin does not matter."""
        if self.final is None:
            return self.start
        return scheduled_beta(self.progress, beta=self.start, final_beta=self.final, shape=self.shape)

    def of_step(self, differences: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """β of a step and M0 after it, from D of all its pairs, (pairs,); None where β does not follow them."""
        if self.alpha is None:
            return None, None
        running = self.running_margin.to(differences.device)
        return beta_dpo((self.start * differences).mean(), running, beta=self.start, alpha=self.alpha)

    def in_words(self) -> list[str]:
        """What moves β, for the plan."""
        if self.alpha is not None:
            return [f"beta follows the step's margin (alpha {self.alpha:g})"]
        return [] if self.final is None else [f"beta to {self.final:g} ({self.shape})"]
