"""A user's own loss as an objective.

It is a function `my_loss(scores, *, beta, …) -> Tensor`: it takes PairScores and, by keyword only, the settings that it
names (beta, label_smoothing, …), and returns one loss a pair, (pairs,), neither weighted nor reduced. Two attributes
say what it needs where that differs from the usual: `my_loss.needs_reference = False` saves the reference model,
`my_loss.needs_step_scores = True` gives it the pairs of the whole optimizer step at once.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from burnish.errors import ConfigError
from burnish.objectives.scores import PairScores

_GIVEN: dict[str, Callable[..., Tensor]] = {}
"""Functions that were handed over in Python, by the name that their settings carry from then on."""


def name_given(function: Callable[..., Tensor]) -> str:
    """The `module:function` by which settings name a function handed over in Python; load_function then finds it."""
    name = f"{function.__module__}:{getattr(function, '__name__', type(function).__name__)}"
    _GIVEN[name] = function
    return name


def load_function(path: str) -> Callable[..., Tensor]:
    """Import a function by `package.module:function`, from where Python finds modules or from the working directory.

    Raises:
        ConfigError: the module or the function is not there, or is no function.
    """
    if path in _GIVEN:
        return _GIVEN[path]
    module_name, _, function_name = path.partition(":")
    try:
        with _working_directory_on_path():
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"loss_type {path!r}: cannot import {module_name} ({error}); it must be importable from where burnish runs"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"loss_type {path!r}: {module_name} has no function {function_name}")
    return cast(Callable[..., Tensor], function)


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """Find modules beside the user, as `python -m` does and a console script does not."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


@functools.lru_cache(maxsize=64)
def checked(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """The same function, but an answer of another shape than (pairs,) is an error and not a broadcast."""

    @functools.wraps(function)
    def loss(scores: PairScores, **settings: Any) -> Tensor:
        losses = function(scores, **settings)
        expected = tuple(scores.chosen_logps.shape)
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        if got != expected:
            raise ConfigError(
                f"{function.__name__} must return one loss a pair, {expected}, not {got}: "
                "burnish weights and averages them itself"
            )
        return losses

    return loss
