"""What a run must know of each paired objective before it computes anything: by name, and without torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from burnish.errors import ConfigError

Denominator = Literal["pairs", "chosen_tokens"]
Reward = Literal["logratio", "average", "logp", "alphapo"]

F_DIVERGENCE = ("f_divergence_type", "f_alpha_divergence_coef")
DIVERGENCE_NAMES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one objective uses and needs."""

    settings: tuple[str, ...] = ("beta",)
    """The settings that it uses, by the user's names."""
    denominator: Denominator = "pairs"
    """What its sum over the step is divided by."""
    needs_reference: bool = True
    needs_step_scores: bool = False
    """Whether a pair's loss depends on the other pairs of the step."""
    uses_margin: bool = False
    """Whether it subtracts the rows' margins."""
    requires: tuple[str, ...] = ()
    """Settings without a sensible default, and columns that every row must have."""
    over_lists: bool = False
    """Whether it sees whole ranked lists (ListScores) instead of pairs."""
    is_likelihood: bool = False
    """Whether it is a plain likelihood: without rewards of its own, and left alone by ld_alpha and use_weighting."""
    saturates: bool = True
    """Whether its gradient vanishes as the margin of rewards grows, as -log σ's does."""
    reward: Reward = "logratio"
    """How rewards are logged: β·(log π - log π_ref), β·mean log π, β·log π, or AlphaPO's r."""

    @property
    def takes_divergence(self) -> bool:
        """Whether an f-divergence other than reverse_kl may be chosen beside it."""
        return self.is_likelihood or F_DIVERGENCE[0] in self.settings


_DIVERGENT = ("beta", *F_DIVERGENCE)
_SMOOTHED = ("beta", "label_smoothing")

FACTS: dict[str, Facts] = {
    "sigmoid": Facts(settings=(*_SMOOTHED, *F_DIVERGENCE), uses_margin=True),
    "hinge": Facts(settings=_DIVERGENT),
    "ipo": Facts(settings=_DIVERGENT, saturates=False),
    "exo_pair": Facts(settings=(*_SMOOTHED, *F_DIVERGENCE), requires=("label_smoothing",)),
    "nca_pair": Facts(saturates=False),
    "robust": Facts(settings=(*_SMOOTHED, *F_DIVERGENCE), uses_margin=True),
    "bco_pair": Facts(),
    "sppo_hard": Facts(saturates=False),
    "aot": Facts(settings=_SMOOTHED, needs_step_scores=True),
    "aot_unpaired": Facts(settings=_SMOOTHED, needs_step_scores=True),
    "apo_zero": Facts(),
    "apo_down": Facts(),
    "discopop": Facts(settings=("beta", "discopop_tau", *F_DIVERGENCE)),
    "sft": Facts(settings=(), denominator="chosen_tokens", is_likelihood=True),
    "sigmoid_norm": Facts(settings=_DIVERGENT, uses_margin=True),
    "odpo": Facts(uses_margin=True, requires=("margin",)),
    "dpop": Facts(settings=("beta", "dpop_lambda"), uses_margin=True),
    "cal": Facts(saturates=False),
    "simpo": Facts(
        settings=("beta", "simpo_gamma", "label_smoothing"),
        needs_reference=False,
        uses_margin=True,
        requires=("beta",),
        reward="average",
    ),
    "cpo": Facts(
        settings=("beta", "label_smoothing", "cpo_alpha"), needs_reference=False, uses_margin=True, reward="logp"
    ),
    "orpo": Facts(settings=("beta", "orpo_nll_on_prompt"), needs_reference=False, saturates=False, reward="average"),
    "alphapo": Facts(
        settings=("beta", "alphapo_alpha", "simpo_gamma"),
        needs_reference=False,
        requires=("beta",),
        reward="alphapo",
    ),
}

FACTS["all_pairs"] = FACTS["sigmoid"]
FACTS |= {name: Facts(over_lists=True) for name in ("plackett_luce", "softmax")}


def facts_of(name: str) -> Facts:
    """Look an objective up.

    Raises:
        ConfigError: no such name; the message gives the nearest and all there are.
    """
    if name in FACTS:
        return FACTS[name]
    near = difflib.get_close_matches(name, FACTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"loss_type {name!r} is unknown: {hint}There are {', '.join(FACTS)}")
