"""Every paired objective by name, what it uses, and what is refused before a run begins."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives import paired
from burnish.objectives.divergences import DIVERGENCES

F_DIVERGENCE = ("f_divergence_type", "f_alpha_divergence_coef")

Denominator = Literal["pairs", "chosen_tokens"]
Reward = Literal["logratio", "average", "logp", "alpha"]


@dataclass(frozen=True, slots=True)
class PairedObjective:
    """One loss of pairs, and what the engine must know about it."""

    function: Callable[..., Tensor]
    """(PairScores, **settings) → (pairs,) losses, neither weighted nor reduced."""
    settings: tuple[str, ...] = ("beta",)
    """The settings that it uses."""
    denominator: Denominator = "pairs"
    """What its sum over the step is divided by."""
    needs_reference: bool = True
    needs_step_scores: bool = False
    """Whether a pair's loss depends on the other pairs of the step."""
    uses_margin: bool = False
    requires_margin: bool = False
    reward: Reward = "logratio"
    """How rewards are logged: β·(log π - log π_ref), β·mean log π, β·log π, or AlphaPO's r."""


PAIRED: dict[str, PairedObjective] = {
    "sigmoid": PairedObjective(paired.sigmoid_loss, ("beta", "label_smoothing", *F_DIVERGENCE), uses_margin=True),
    "hinge": PairedObjective(paired.hinge_loss, ("beta", *F_DIVERGENCE)),
    "ipo": PairedObjective(paired.ipo_loss, ("beta", *F_DIVERGENCE)),
}


def find_objective(name: str) -> PairedObjective:
    """Look an objective up.

    Raises:
        ConfigError: no such name; the message gives the nearest and all there are.
    """
    if name in PAIRED:
        return PAIRED[name]
    near = difflib.get_close_matches(name, PAIRED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"loss_type {name!r} is unknown: {hint}There are {', '.join(PAIRED)}")


def objectives_using(setting: str) -> list[str]:
    """Names of the objectives that use a setting, or the `margin` column."""
    if setting == "margin":
        return [name for name, objective in PAIRED.items() if objective.uses_margin]
    return [name for name, objective in PAIRED.items() if setting in objective.settings]


def check_settings(loss_types: Sequence[str], given: Mapping[str, Any]) -> None:
    """Refuse settings that are out of range, and those that none of the chosen objectives uses.

    Args:
        loss_types: names of the chosen objectives.
        given: the settings that the user gave, whatever their value, without those left at their default. A column
            counts as given where the rows have it: `margin`, `weight`. Names that are no objective's are skipped.

    Raises:
        ConfigError: names the setting, why, and what to do.
    """
    chosen = {name: find_objective(name) for name in loss_types}
    if len(chosen) < len(loss_types):
        raise ConfigError(
            f"loss_type names an objective twice: {' '.join(loss_types)}; add up their loss_weights instead"
        )
    _check_used(chosen, given)
    _check_ranges(given)


def _check_used(chosen: Mapping[str, PairedObjective], given: Mapping[str, Any]) -> None:
    known = {setting for objective in PAIRED.values() for setting in objective.settings} | {"margin"}
    for setting in given:
        if setting == "beta" or setting not in known or given[setting] in (None, False):
            continue
        users = objectives_using(setting)
        if not set(users) & set(chosen):
            raise ConfigError(
                f"{setting} is used by {', '.join(users)}, not by {_and(chosen)}: leave it out, or choose one of those"
            )


def _check_ranges(given: Mapping[str, Any]) -> None:
    if not given.get("beta", 1.0) > 0:
        raise ConfigError(f"beta must be greater than 0, not {given['beta']}")
    if not 0 <= given.get("label_smoothing", 0.0) < 0.5:
        raise ConfigError(
            f"label_smoothing must be in [0, 0.5), not {given['label_smoothing']}: from ½ on, flipped labels win"
        )
    divergence = given.get("f_divergence_type", "reverse_kl")
    if divergence not in DIVERGENCES:
        raise ConfigError(f"f_divergence_type {divergence!r} is unknown: there are {', '.join(DIVERGENCES)}")


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
