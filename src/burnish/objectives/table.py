"""Every paired objective by name, and what it uses and needs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives import coupled, custom, paired, paired_absolute, reference_free

Denominator = Literal["pairs", "chosen_tokens"]
Reward = Literal["logratio", "average", "logp", "alphapo"]

F_DIVERGENCE = ("f_divergence_type", "f_alpha_divergence_coef")
STATE = ("reward_baseline",)
"""Arguments that come from the run's state, not from a setting."""


@dataclass(frozen=True, slots=True)
class PairedObjective:
    """One loss of pairs, and what a run must know about it."""

    function: Callable[..., Tensor]
    """(PairScores, **settings) → (pairs,) losses, neither weighted nor reduced."""
    denominator: Denominator = "pairs"
    """What its sum over the step is divided by."""
    likelihood: Callable[..., Tensor] | None = None
    """A second part like function, always divided by the step's chosen tokens."""
    needs_reference: bool = True
    needs_step_scores: bool = False
    """Whether a pair's loss depends on the other pairs of the step."""
    uses_margin: bool = False
    """Whether it subtracts the rows' margins."""
    requires: tuple[str, ...] = ()
    """Settings without a sensible default, and columns that every row must have."""
    is_likelihood: bool = False
    """Whether it is a plain likelihood: without rewards of its own, and left alone by ld_alpha and use_weighting."""
    reward: Reward = "logratio"
    """How rewards are logged: β·(log π - log π_ref), β·mean log π, β·log π, or AlphaPO's r."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that it uses, by the user's names."""
        names = [*keyword_arguments(self.function)]
        if self.likelihood is not None:
            names += [name for name in keyword_arguments(self.likelihood) if name not in names]
        if "divergence" in names:
            names.remove("divergence")
            names += F_DIVERGENCE
        return tuple(name for name in names if name not in STATE)

    @property
    def uses_reward_baseline(self) -> bool:
        """Whether it subtracts the mean reward of earlier steps (BCO's δ)."""
        return "reward_baseline" in keyword_arguments(self.function)

    @property
    def takes_divergence(self) -> bool:
        """Whether an f-divergence other than reverse_kl may be chosen beside it."""
        return self.is_likelihood or "divergence" in keyword_arguments(self.function)


PAIRED: dict[str, PairedObjective] = {
    "sigmoid": PairedObjective(paired.sigmoid_loss, uses_margin=True),
    "hinge": PairedObjective(paired.hinge_loss),
    "ipo": PairedObjective(paired.ipo_loss),
    "exo_pair": PairedObjective(paired.exo_pair_loss, requires=("label_smoothing",)),
    "nca_pair": PairedObjective(paired_absolute.nca_pair_loss),
    "robust": PairedObjective(paired.robust_loss, uses_margin=True),
    "bco_pair": PairedObjective(paired_absolute.bco_pair_loss),
    "sppo_hard": PairedObjective(paired_absolute.sppo_hard_loss),
    "aot": PairedObjective(coupled.aot_loss, needs_step_scores=True),
    "aot_unpaired": PairedObjective(coupled.aot_unpaired_loss, needs_step_scores=True),
    "apo_zero": PairedObjective(paired_absolute.apo_zero_loss),
    "apo_down": PairedObjective(paired_absolute.apo_down_loss),
    "discopop": PairedObjective(paired.discopop_loss),
    "sft": PairedObjective(paired.sft_loss, denominator="chosen_tokens", is_likelihood=True),
    "sigmoid_norm": PairedObjective(paired.sigmoid_norm_loss, uses_margin=True),
    "odpo": PairedObjective(paired.odpo_loss, uses_margin=True, requires=("margin",)),
    "dpop": PairedObjective(paired.dpop_loss, uses_margin=True),
    "cal": PairedObjective(paired_absolute.cal_loss),
    "simpo": PairedObjective(
        reference_free.simpo_loss, needs_reference=False, uses_margin=True, requires=("beta",), reward="average"
    ),
    "cpo": PairedObjective(
        reference_free.cpo_loss,
        likelihood=reference_free.cpo_likelihood,
        needs_reference=False,
        uses_margin=True,
        reward="logp",
    ),
    "orpo": PairedObjective(
        reference_free.orpo_loss,
        likelihood=reference_free.orpo_likelihood,
        needs_reference=False,
        reward="average",
    ),
    "alphapo": PairedObjective(
        reference_free.alphapo_loss, needs_reference=False, requires=("beta",), reward="alphapo"
    ),
}

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
    if loss_type in PAIRED:
        return PAIRED[loss_type]
    near = difflib.get_close_matches(loss_type, PAIRED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"loss_type {loss_type!r} is unknown: {hint}There are {', '.join(PAIRED)}")


def objective_name(loss_type: LossType) -> str:
    """The name under which it is logged: of a function, the function's."""
    if isinstance(loss_type, str):
        return loss_type.rpartition(":")[2]
    return getattr(loss_type, "__name__", type(loss_type).__name__)


@lru_cache(maxsize=256)
def keyword_arguments(function: Callable[..., Tensor]) -> tuple[str, ...]:
    """Names of a function's keyword-only arguments."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)


def _own_objective(function: Callable[..., Tensor]) -> PairedObjective:
    return PairedObjective(
        custom.checked(function),
        needs_reference=getattr(function, "needs_reference", True),
        needs_step_scores=getattr(function, "needs_step_scores", False),
        uses_margin=True,
    )
