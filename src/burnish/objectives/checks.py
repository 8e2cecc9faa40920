"""What is refused before a run begins: settings out of range, and those that no chosen objective uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from burnish.errors import ConfigError
from burnish.objectives.facts import DIVERGENCE_NAMES, F_DIVERGENCE, FACTS, Facts, facts_of

Chosen = Mapping[str, Facts]
LossType = str | Callable[..., Any]

ROW_COLUMNS = ("margin", "label_smoothing")
"""Columns of rows that only some objectives use."""


def check_settings(
    loss_types: Sequence[LossType], given: Mapping[str, Any], *, shadows: Sequence[LossType] = ()
) -> None:
    """Refuse settings that are out of range, missing, or used by none of the chosen objectives.

    Args:
        loss_types: the chosen objectives.
        given: the settings that the user gave, without those left at their defaults. None and False count as not given;
            names of settings that are no objective's are skipped.
        shadows: objectives that are only logged; they use settings as the chosen ones do.

    Raises:
        ConfigError: names the setting, why, and what to do.
    """
    chosen = choose(loss_types)
    shadowed = choose(shadows) if shadows else {}
    _check_shadows(chosen, shadowed)
    chosen = chosen | shadowed
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    _check_ranges(given)
    for name, value in given.items():
        _check_used(name, value, chosen)
    _check_required(chosen, given)
    if given.get("f_divergence_type", "reverse_kl") != "reverse_kl":
        _check_divergence(chosen, given["f_divergence_type"])
    if "f_alpha_divergence_coef" in given and given.get("f_divergence_type") != "alpha_divergence":
        raise ConfigError("f_alpha_divergence_coef is used by f_divergence_type alpha_divergence only: leave it out")
    listed = [name for name, objective in chosen.items() if objective.over_lists]
    for name in ("ld_alpha", "use_weighting"):
        if listed and name in given:
            raise ConfigError(f"{name} compares the two completions of a pair, and {_and(listed)} sees lists: drop it")
    coupled = [name for name, objective in chosen.items() if objective.needs_step_scores]
    if coupled and "use_weighting" in given:
        raise ConfigError(f"use_weighting cannot weigh the pairs of {_and(coupled)}, whose values belong to no pair")


def check_weights(loss_types: Sequence[LossType], loss_weights: Sequence[float] | None) -> list[float]:
    """One weight for each objective; None weighs each 1.

    Raises:
        ConfigError: too few or too many, one that is negative or not finite, or nothing but zeros.
    """
    weights = [1.0] * len(loss_types) if loss_weights is None else [float(weight) for weight in loss_weights]
    if len(weights) != len(loss_types):
        names = ", ".join(map(objective_name, loss_types))
        raise ConfigError(
            f"loss_weights has {len(weights)} values for {len(loss_types)} objectives: give one for each of {names}"
        )
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ConfigError(f"loss_weights must be finite, 0 or more and not all 0, not {weights}")
    return weights


def check_columns(
    loss_types: Sequence[LossType],
    columns: Collection[str],
    *,
    weighted: bool = False,
    shadows: Sequence[LossType] = (),
) -> None:
    """Refuse columns of the rows that the chosen objectives would ignore, and miss those that they need.

    Args:
        loss_types: the chosen objectives.
        columns: names of optional columns that the rows have, of ROW_COLUMNS; others are skipped.
        weighted: whether any row's weight differs from 1.
        shadows: objectives that are only logged; they use columns as the chosen ones do.

    Raises:
        ConfigError: names the column, why, and what to do.
    """
    chosen = choose(loss_types) | (choose(shadows) if shadows else {})
    for name, objective in chosen.items():
        if "margin" in objective.requires and "margin" not in columns:
            raise ConfigError(f"loss_type {name} needs a margin in every row: add the column, or take sigmoid")
        row_columns = [column for column in ROW_COLUMNS if column in columns] + ["weight"] * weighted
        if objective.needs_step_scores and row_columns:
            raise ConfigError(
                f"loss_type {name} sorts the step's values, which belong to no row: it cannot honour the rows' "
                f"{_and(row_columns)}; remove the column, or choose another loss_type"
            )
    for column in ROW_COLUMNS:
        if column in columns:
            _check_used(column, None, chosen, what="the column ")


def choose(loss_types: Sequence[LossType]) -> dict[str, Facts]:
    """The facts of the chosen objectives by name; only a user's own function is imported for them.

    Raises:
        ConfigError: none, an unknown one, or one twice.
    """
    if not loss_types:
        raise ConfigError(f"loss_type is empty: name at least one objective of {', '.join(FACTS)}")
    chosen = {objective_name(loss_type): _facts(loss_type) for loss_type in loss_types}
    if len(chosen) < len(loss_types):
        names = " ".join(objective_name(loss_type) for loss_type in loss_types)
        raise ConfigError(f"loss_type names an objective twice: {names}; add up its loss_weights")
    return chosen


def objective_name(loss_type: LossType) -> str:
    """The name under which it is logged: of a function, the function's."""
    if isinstance(loss_type, str):
        return loss_type.rpartition(":")[2]
    return getattr(loss_type, "__name__", type(loss_type).__name__)


def _facts(loss_type: LossType) -> Facts:
    if isinstance(loss_type, str) and ":" not in loss_type:
        return facts_of(loss_type)
    from burnish.objectives.table import find_objective  # brings torch, which names alone do not need

    return find_objective(loss_type)


def uses(objective: Facts, setting: str) -> bool:
    """Whether an objective uses a setting, or a column of the rows."""
    if setting == "margin":
        return objective.uses_margin
    if setting == "ld_alpha":
        return not objective.is_likelihood and not objective.over_lists
    if setting == "use_weighting":
        return not (objective.is_likelihood or objective.needs_step_scores or objective.over_lists)
    return setting in objective.settings


def _check_used(setting: str, value: Any, chosen: Chosen, *, what: str = "") -> None:
    users = [name for name, objective in FACTS.items() if uses(objective, setting)]
    if setting == "beta" or not users:
        return
    if setting in F_DIVERGENCE and (value == "reverse_kl" or all(it.takes_divergence for it in chosen.values())):
        return
    if not any(uses(objective, setting) for objective in chosen.values()):
        raise ConfigError(
            f"{what}{setting} is used by {', '.join(users)}, and not by {_and(chosen)}: "
            "leave it out, or choose one of those"
        )


def _check_required(chosen: Chosen, given: Mapping[str, Any]) -> None:
    for name, objective in chosen.items():
        if "beta" in objective.requires and "beta" not in given:
            raise ConfigError(
                f"loss_type {name} has no reference, and its beta is of another size than DPO's: give beta (the paper "
                "takes 2 to 2.5)"
            )
        if "label_smoothing" in objective.requires and not given.get("label_smoothing", 0.0) > 0:
            raise ConfigError(
                f"loss_type {name} takes the logarithm of label_smoothing, which must be above 0: give, say, 0.001"
            )


def _check_shadows(chosen: Chosen, shadowed: Chosen) -> None:
    has_reference = any(objective.needs_reference for objective in chosen.values())
    for name, objective in shadowed.items():
        if objective.over_lists:
            raise ConfigError(f"shadow_losses {name} is not one of pairs, and shadows see pairs only: leave it out")
        if objective.needs_step_scores:
            raise ConfigError(
                f"shadow_losses {name} needs a pass over the whole step, and shadows get none: leave it out"
            )
        if objective.needs_reference and not objective.is_likelihood and not has_reference:
            raise ConfigError(
                f"shadow_losses {name} compares with a reference, and {_and(chosen)} has none: leave it out"
            )


def _check_divergence(chosen: Chosen, divergence: str) -> None:
    for name, objective in chosen.items():
        if not objective.takes_divergence:
            takers = [name for name, objective in FACTS.items() if objective.takes_divergence]
            raise ConfigError(
                f"f_divergence_type {divergence} is for {', '.join(takers)}, and not for {name}: leave it out, or "
                "choose one of those"
            )


RANGES: dict[str, tuple[str, Any]] = {
    "beta": ("greater than 0", lambda value: 0 < value < math.inf),
    "label_smoothing": ("in [0, 0.5), since from a half on the flipped labels win", lambda value: 0 <= value < 0.5),
    "f_divergence_type": (f"one of {', '.join(DIVERGENCE_NAMES)}", lambda value: value in DIVERGENCE_NAMES),
    "f_alpha_divergence_coef": ("a finite number", math.isfinite),
    "discopop_tau": ("greater than 0", lambda value: 0 < value < math.inf),
    "dpop_lambda": ("0 or more", lambda value: 0 <= value < math.inf),
    "simpo_gamma": ("a finite number", math.isfinite),
    "cpo_alpha": ("0 or more", lambda value: 0 <= value < math.inf),
    "alphapo_alpha": ("a finite number", math.isfinite),
    "ld_alpha": ("in [0, 1]", lambda value: 0 <= value <= 1),
}
"""What a setting may be, in words and as a test."""


def _check_ranges(given: Mapping[str, Any]) -> None:
    for name, (words, holds) in RANGES.items():
        if name in given and not holds(given[name]):
            raise ConfigError(f"{name} must be {words}, not {given[name]}")


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
