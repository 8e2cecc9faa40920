"""Every paired objective by name: its function, beside the facts that facts.py states."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from burnish.objectives import coupled, custom, lists, paired, paired_absolute, reference_free
from burnish.objectives.facts import F_DIVERGENCE, FACTS, Facts, facts_of

STATE = ("reward_baseline",)
"""Arguments that come from the run's state, not from a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedObjective(Facts):
    """One loss of pairs, and what a run must know about it."""

    function: Callable[..., Tensor]
    """(PairScores, **settings) → (pairs,) losses, neither weighted nor reduced."""
    likelihood: Callable[..., Tensor] | None = None
    """A second part like function, always divided by the step's chosen tokens."""

    @property
    def uses_reward_baseline(self) -> bool:
        """Whether it subtracts the mean reward of earlier steps (BCO's δ)."""
        return "reward_baseline" in keyword_arguments(self.function)


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "sigmoid": paired.sigmoid_loss,
    "hinge": paired.hinge_loss,
    "ipo": paired.ipo_loss,
    "exo_pair": paired.exo_pair_loss,
    "nca_pair": paired_absolute.nca_pair_loss,
    "robust": paired.robust_loss,
    "bco_pair": paired_absolute.bco_pair_loss,
    "sppo_hard": paired_absolute.sppo_hard_loss,
    "aot": coupled.aot_loss,
    "aot_unpaired": coupled.aot_unpaired_loss,
    "apo_zero": paired_absolute.apo_zero_loss,
    "apo_down": paired_absolute.apo_down_loss,
    "discopop": paired.discopop_loss,
    "sft": paired.sft_loss,
    "sigmoid_norm": paired.sigmoid_norm_loss,
    "odpo": paired.odpo_loss,
    "dpop": paired.dpop_loss,
    "cal": paired_absolute.cal_loss,
    "simpo": reference_free.simpo_loss,
    "cpo": reference_free.cpo_loss,
    "orpo": reference_free.orpo_loss,
    "alphapo": reference_free.alphapo_loss,
}

_LIKELIHOODS: dict[str, Callable[..., Tensor]] = {
    "cpo": reference_free.cpo_likelihood,
    "orpo": reference_free.orpo_likelihood,
}
"""Second parts, divided by the step's chosen tokens."""


def _with_facts(facts: Facts, function: Callable[..., Tensor], likelihood: Callable[..., Tensor] | None) -> Any:
    stated = {field.name: getattr(facts, field.name) for field in dataclasses.fields(Facts)}
    return PairedObjective(function=function, likelihood=likelihood, **stated)


PAIRED: dict[str, PairedObjective] = {
    name: _with_facts(FACTS[name], function, _LIKELIHOODS.get(name)) for name, function in _FUNCTIONS.items()
}

LISTS: dict[str, PairedObjective] = {
    "plackett_luce": _with_facts(FACTS["plackett_luce"], lists.plackett_luce_loss, None),
    "softmax": _with_facts(FACTS["softmax"], lists.softmax_loss, None),
}
"""Objectives of whole ranked lists: their functions take ListScores."""

ALIASES = {"all_pairs": "sigmoid"}
"""Other names: on lists, any paired loss goes over all ranked pairs, and this is the plainest of them."""

LossType = str | Callable[..., Tensor]
"""A name in PAIRED, `package.module:function`, or the function itself."""


def find_objective(loss_type: LossType) -> PairedObjective:
    """Look an objective up.

    Raises:
        ConfigError: no such name; the message gives the nearest and all there are.
    """
    if not isinstance(loss_type, str):
        return _own_objective(loss_type)
    if ":" in loss_type:
        return _own_objective(custom.load_function(loss_type))
    facts_of(loss_type)
    return LISTS[loss_type] if loss_type in LISTS else PAIRED[ALIASES.get(loss_type, loss_type)]


@lru_cache(maxsize=256)
def keyword_arguments(function: Callable[..., Tensor]) -> tuple[str, ...]:
    """Names of a function's keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)


def used_settings(*functions: Callable[..., Tensor]) -> tuple[str, ...]:
    """The settings that loss functions name among their arguments, by the user's names."""
    names = dict.fromkeys(name for function in functions for name in keyword_arguments(function))
    if "divergence" in names:
        del names["divergence"]
        names |= dict.fromkeys(F_DIVERGENCE)
    return tuple(name for name in names if name not in STATE)


def _own_objective(function: Callable[..., Tensor]) -> PairedObjective:
    needs_reference = getattr(function, "needs_reference", True)
    return PairedObjective(
        function=custom.checked(function),
        settings=used_settings(function),
        needs_reference=needs_reference,
        reward="logratio" if needs_reference else "logp",
        needs_step_scores=getattr(function, "needs_step_scores", False),
        uses_margin=True,
        saturates=False,
    )
