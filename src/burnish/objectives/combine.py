"""Several objectives as one loss: each term a sum over the step divided by its own count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.divergences import choose_divergence
from burnish.objectives.metrics import Metric, preference_rewards
from burnish.objectives.scores import PairScores
from burnish.objectives.table import PairedObjective, Reward, find_objective

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "beta": 0.1,
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
    }
)


@dataclass(frozen=True, slots=True)
class Term:
    """One objective of a combination."""

    name: str
    objective: PairedObjective
    weight: float


@dataclass(frozen=True, eq=False)
class Combination:
    """Σ over terms: weight · Σ over the step's pairs (row weight · loss) / the term's count.

    The counts are of the whole step, over all micro-batches and ranks, and known before the first forward; so the
    shares of micro-batches add up to the step's loss however the step is cut.
    """

    loss_types: Sequence[str]
    """Names in table.PAIRED, each once."""
    loss_weights: Sequence[float] | None = None
    """One weight a term, ≥ 0; None weighs each 1."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of objectives' settings; missing ones take DEFAULTS."""

    def __post_init__(self) -> None:
        if not self.loss_types:
            raise ConfigError("loss_type is empty: name at least one objective")
        weights = self.loss_weights if self.loss_weights is not None else [1.0] * len(self.loss_types)
        if len(weights) != len(self.loss_types):
            raise ConfigError(
                f"loss_weights has {len(weights)} values for {len(self.loss_types)} objectives: give one for each"
            )
        if not all(0 <= weight < float("inf") for weight in weights):
            raise ConfigError(f"loss_weights must be finite and not negative, not {list(weights)}")

    @property
    def terms(self) -> tuple[Term, ...]:
        weights = self.loss_weights if self.loss_weights is not None else [1.0] * len(self.loss_types)
        pairs = zip(self.loss_types, weights, strict=True)
        return tuple(Term(name, find_objective(name), float(weight)) for name, weight in pairs)

    @property
    def needs_reference(self) -> bool:
        """Whether any term compares the policy with a reference."""
        return any(term.objective.needs_reference for term in self.terms)

    @property
    def reward(self) -> Reward:
        """How rewards are logged: by the log-ratio where there is a reference, else as the first term defines them."""
        return "logratio" if self.needs_reference else self.terms[0].objective.reward

    def losses(self, scores: PairScores, step_values: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Each term's losses by name, (pairs,), without weights and not reduced.

        Args:
            scores: of a micro-batch.
            step_values: settings whose value belongs to the step and wins over `settings`, such as a scheduled beta;
                numbers or scalar tensors.
        """
        return {term.name: self._losses(term, scores, step_values or {}) for term in self.terms}

    def total(
        self, scores: PairScores, denominators: Mapping[str, float], step_values: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Metric]]:
        """A micro-batch's share of the step's loss, and each term's as a metric.

        Args:
            scores: of a micro-batch.
            denominators: counts of the step: `pairs`, and `chosen_tokens` where a term needs them.
            step_values: as in losses.

        Returns:
            The scalar to differentiate, and `loss/<name>` → (the term's share, unweighted; the share of the step's
            pairs), whose sums over a logging interval give the mean over its steps.
        """
        share = torch.full((), scores.num_pairs / denominators["pairs"], device=scores.chosen_logps.device)
        total = scores.chosen_logps.new_zeros(())
        metrics: dict[str, Metric] = {}
        for term in self.terms:
            numerator = (scores.weight * self._losses(term, scores, step_values or {})).sum()
            value = numerator / denominators[term.objective.denominator]
            total = total + term.weight * value
            metrics[f"loss/{term.name}"] = (value.detach(), share)
        return total, metrics

    def rewards(self, scores: PairScores, step_values: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor]:
        """Rewards of chosen and rejected completions as they are logged, each (pairs,), no gradient."""
        return preference_rewards(scores, self.reward, beta=self._value("beta", step_values or {}))

    def _losses(self, term: Term, scores: PairScores, step_values: Mapping[str, Any]) -> Tensor:
        return term.objective.function(scores, **self._arguments(term.objective, scores, step_values))

    def _arguments(
        self, objective: PairedObjective, scores: PairScores, step_values: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The keyword arguments of an objective's function."""
        arguments = {name: self._value(name, step_values) for name in objective.settings}
        divergence = arguments.pop("f_divergence_type", None)
        coef = arguments.pop("f_alpha_divergence_coef", None)
        if divergence is not None:
            arguments["divergence"] = choose_divergence(divergence, coef=coef)
        if "label_smoothing" in arguments and scores.label_smoothing is not None:
            arguments["label_smoothing"] = scores.label_smoothing
        return arguments

    def _value(self, name: str, step_values: Mapping[str, Any]) -> Any:
        for source in (step_values, self.settings, DEFAULTS):
            if name in source:
                return source[name]
        raise ConfigError(f"{name} has no default: give it a value")
