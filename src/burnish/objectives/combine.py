"""Several objectives as one loss: each term a sum over the step divided by its own count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.checks import check_weights, choose, objective_name
from burnish.objectives.coupled import linear_surrogate, step_coefficients
from burnish.objectives.divergences import Divergence, choose_divergence
from burnish.objectives.facts import FACTS, Reward
from burnish.objectives.lists import ListScores
from burnish.objectives.metrics import Metric, preference_rewards
from burnish.objectives.paired import score_difference
from burnish.objectives.scores import PairScores
from burnish.objectives.table import LossType, PairedObjective, find_objective, keyword_arguments


@dataclass(frozen=True, slots=True)
class Term:
    """One objective of a combination."""

    name: str
    objective: PairedObjective
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class CoupledStep:
    """Terms that couple the step, computed once on the scores of all its pairs."""

    losses: Mapping[str, Tensor]
    """Each such term's loss by name, scalar, not multiplied by its weight."""
    coefficients: Tensor
    """(completions,) derivative of their weighted sum by each log-probability: chosen, rejected, chosen, …"""

    def select(self, pairs: Tensor) -> CoupledStep:
        """The part of some pairs, (selected,) int64, in the order of the step's scores."""
        by_pair = self.coefficients.view(-1, 2).index_select(0, pairs)
        return replace(self, coefficients=by_pair.reshape(-1))


@dataclass(frozen=True, eq=False)
class Combination:
    """Σ over terms: weight · Σ over the step's pairs (row weight · loss) / the term's count.

    The counts are of the whole step, over all micro-batches and ranks, and known before the first forward; so the
    shares of micro-batches add up to the step's loss however the step is cut. Their names, keys of `denominators`:
    `pairs`; `chosen_tokens`, counted tokens of the chosen completions; and, with orpo_nll_on_prompt only,
    `chosen_and_prompt_tokens`.
    """

    loss_types: Sequence[LossType]
    """Names in table.PAIRED or a user's own functions, each once."""
    loss_weights: Sequence[float] | None = None
    """One weight a term, ≥ 0; None weighs each 1."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of objectives' settings; those that are missing keep the functions' defaults. `beta` has none."""
    terms: tuple[Term, ...] = field(init=False)

    def __post_init__(self) -> None:
        choose(self.loss_types)
        chosen = {objective_name(loss_type): find_objective(loss_type) for loss_type in self.loss_types}
        weights = check_weights(self.loss_types, self.loss_weights)
        terms = (Term(*item, weight) for item, weight in zip(chosen.items(), weights, strict=True))
        object.__setattr__(self, "terms", tuple(terms))

    @property
    def needs_reference(self) -> bool:
        """Whether a reference must be scored. A likelihood term alone asks for one, for the metrics' sake."""
        compared = [term.objective for term in self.terms if not term.objective.is_likelihood]
        return any(objective.needs_reference for objective in compared) or not compared

    @property
    def needs_step_scores(self) -> bool:
        """Whether a term couples the pairs of the step, so that `couple` must be called on all of them first."""
        return any(term.objective.needs_step_scores for term in self.terms)

    @property
    def list_terms(self) -> tuple[str, ...]:
        """Names of the terms that see whole lists."""
        return tuple(term.name for term in self.terms if term.objective.over_lists)

    @property
    def is_closed(self) -> bool:
        """Whether the loss depends on log-ratios alone, so that its value is known where they are all 0."""
        own = any(term.name not in FACTS for term in self.terms)
        compares = all(term.objective.needs_reference and not term.objective.is_likelihood for term in self.terms)
        return compares and not own and not self.settings.get("use_weighting")

    @property
    def saturates(self) -> bool:
        """Whether a pair whose margin is large teaches nothing more, whichever term one looks at."""
        compared = [term.objective for term in self.terms if not term.objective.is_likelihood]
        return bool(compared) and all(objective.saturates for objective in compared)

    @property
    def uses_reward_baseline(self) -> bool:
        """Whether `reward_baseline` belongs into step_values (running.RewardBaseline)."""
        return any(term.objective.uses_reward_baseline for term in self.terms)

    @property
    def reward(self) -> Reward:
        """How rewards are logged: by the log-ratio where there is a reference, else as the first term defines them."""
        if self.needs_reference:
            return "logratio"
        return next(term.objective.reward for term in self.terms if not term.objective.is_likelihood)

    def shares(
        self, scores: PairScores, denominators: Mapping[str, float], step_values: Mapping[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """What each pair adds to each term's loss of the step, (pairs,); terms that couple the step are left out.

        Args:
            scores: of some of the step's pairs.
            denominators: counts of the whole step.
            step_values: settings whose value belongs to the step and wins over `settings`: a scheduled `beta`, the
                `reward_baseline`; numbers or scalar tensors.
        """
        alone = [term for term in self.terms if not (term.objective.needs_step_scores or term.objective.over_lists)]
        return {term.name: self._shares(term.objective, scores, denominators, step_values or {}) for term in alone}

    def couple(
        self, scores: PairScores, denominators: Mapping[str, float], step_values: Mapping[str, Any] | None = None
    ) -> CoupledStep:
        """Compute the terms that couple the step.

        Args:
            scores: of all pairs of the step, on all ranks, in one order; without gradient.
            denominators: as in shares.
            step_values: as in shares.
        """
        losses: dict[str, Tensor] = {}
        coefficients = scores.chosen_logps.new_zeros(2 * scores.num_pairs)
        for term in self.terms:
            if term.objective.needs_step_scores:
                loss_of = self._step_loss(term.objective, denominators, step_values or {})
                losses[term.name], slopes = step_coefficients(loss_of, scores)
                coefficients = coefficients + term.weight * slopes
        return CoupledStep(losses, coefficients)

    def total(
        self,
        scores: PairScores,
        denominators: Mapping[str, float],
        step_values: Mapping[str, Any] | None = None,
        *,
        coupled: CoupledStep | None = None,
        lists: Mapping[str, ListScores] | None = None,
    ) -> tuple[Tensor, dict[str, Metric]]:
        """A micro-batch's share of the step's loss, and each term's as a metric.

        Args:
            scores: of a micro-batch.
            denominators: as in shares.
            step_values: as in shares.
            coupled: of these pairs, from `couple(…).select(…)`, where needs_step_scores.
            lists: the same completions as ranked lists, for each term in `list_terms`.

        Returns:
            The scalar to differentiate, and `loss/<name>` → (the term's share, unweighted; the share of the step's
            pairs), whose sums over a logging interval give the mean over its steps.
        """
        shares = self.shares(scores, denominators, step_values)
        fraction = scores.num_groups / denominators["pairs"]
        total = scores.chosen_logps.new_zeros(())
        metrics: dict[str, Metric] = {}
        for term in self.terms:
            if term.name in shares:
                value = shares[term.name].sum()
            elif term.objective.over_lists:
                of_lists = (lists or {})[term.name]
                losses = self._call(term.objective.function, of_lists, step_values or {})
                value = (of_lists.weight * losses).sum() / denominators["pairs"]
            elif coupled is not None:
                value = coupled.losses[term.name] * fraction
            else:
                raise ConfigError(f"loss_type {term.name} couples the step: its scores must be coupled first")
            total = total + term.weight * value
            metrics[f"loss/{term.name}"] = (value.detach(), fraction)
        if coupled is not None:
            total = total + linear_surrogate(coupled.coefficients, scores)
        return total, metrics

    def rewards(self, scores: PairScores, step_values: Mapping[str, Any] | None = None) -> tuple[Tensor, Tensor]:
        """Rewards of chosen and rejected completions as they are logged, each (pairs,), no gradient."""
        values = {"beta": None, **self.settings, **(step_values or {})}
        settings = {"alphapo_alpha": values["alphapo_alpha"]} if "alphapo_alpha" in values else {}
        return preference_rewards(scores, self.reward, beta=values["beta"], **settings)

    def score_differences(self, scores: PairScores) -> Tensor:
        """D = s(Lw) - s(Ll) of each pair, (pairs,), with the chosen f-divergence; needs a reference."""
        return score_difference(scores, self._divergence())

    def in_words(self) -> str:
        """Terms with their weights, and the settings that they use: `1 x sigmoid + 0.1 x sft; beta 0.1`."""
        terms = " + ".join(f"{term.weight:g} x {term.name}" for term in self.terms)
        used = ("beta", "ld_alpha", "use_weighting", *(name for term in self.terms for name in term.objective.settings))
        values = {name: self.settings.get(name) for name in used}
        divergence = values.get("f_divergence_type")
        if divergence != "alpha_divergence":
            values["f_alpha_divergence_coef"] = None
        if divergence == "reverse_kl":  # DPO's own, and every reader's expectation
            values["f_divergence_type"] = None
        told = [f"{name} {_in_words(value)}" for name, value in values.items() if value not in (None, False)]
        return f"{terms}; {', '.join(told)}"

    def loss_at_start(self) -> float | None:
        """The loss where policy and reference are equal, every weight is 1 and no row has a margin: log 2 for sigmoid.

        None where it depends on the model: a likelihood term, no reference, a user's own function, use_weighting.
        """
        if not self.is_closed or self.list_terms:
            return None
        zeros = torch.zeros(2, dtype=torch.float64)
        scores = PairScores.from_completions(zeros, zeros, torch.ones_like(zeros), margin=zeros[:1])
        coupled = self.couple(scores, {"pairs": 1.0}) if self.needs_step_scores else None
        return float(self.total(scores, {"pairs": 1.0}, coupled=coupled)[0])

    def _shares(
        self,
        objective: PairedObjective,
        scores: PairScores,
        denominators: Mapping[str, float],
        step_values: Mapping[str, Any],
    ) -> Tensor:
        share = self._call(objective.function, scores, step_values) / denominators[objective.denominator]
        if objective.likelihood is not None:
            likelihood = self._call(objective.likelihood, scores, step_values)
            share = share + likelihood / denominators[self._likelihood_denominator(objective)]
        if scores.pair_weight is not None and not objective.is_likelihood:
            share = share * scores.pair_weight
        weight = scores.weight if scores.share is None else scores.weight * scores.share
        return weight * share

    def _step_loss(
        self, objective: PairedObjective, denominators: Mapping[str, float], step_values: Mapping[str, Any]
    ) -> Callable[[PairScores], Tensor]:
        def loss(scores: PairScores) -> Tensor:
            return self._call(objective.function, scores, step_values).sum() / denominators["pairs"]

        return loss

    def _likelihood_denominator(self, objective: PairedObjective) -> str:
        counts_prompt = "orpo_nll_on_prompt" in objective.settings and self.settings.get("orpo_nll_on_prompt")
        return "chosen_and_prompt_tokens" if counts_prompt else "chosen_tokens"

    def _call(
        self, function: Callable[..., Tensor], scores: PairScores | ListScores, step_values: Mapping[str, Any]
    ) -> Tensor:
        """Call a loss with the settings that it names."""
        values = {**self.settings, **step_values}
        if isinstance(scores, PairScores) and scores.label_smoothing is not None:
            values["label_smoothing"] = scores.label_smoothing
        values["divergence"] = self._divergence()
        names = keyword_arguments(function)
        return function(scores, **{name: values[name] for name in names if name in values})

    def _divergence(self) -> Divergence:
        return choose_divergence(
            self.settings.get("f_divergence_type", "reverse_kl"), coef=self.settings.get("f_alpha_divergence_coef", 0.5)
        )


def _in_words(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
