"""Whether DeepSpeed spreads a run's optimizer over ranks, and what it is told."""

from __future__ import annotations

from typing import Any

from burnish.console import notice
from burnish.device.precision import Precision
from burnish.device.ranks import Ranks
from burnish.device.zero import check_deepspeed_is_installed
from burnish.engine.zero_settings import fill_zero, read_zero

_SPREAD = {1: "optimizer state is", 2: "gradients and optimizer state are"}


def zero_options(
    config: Any, ranks: Ranks, batch_size: int, precision: Precision | None = None
) -> dict[str, Any] | None:
    """What DeepSpeed is given; None without --deepspeed, and for one process, which has nothing to spread.

    Called twice: before anything is loaded, so that a contradiction is told early, and once the precision is known.

    Args:
        config: all settings.
        ranks: of the run.
        batch_size: groups of a step over all ranks.
        precision: of the run; None before it is chosen.

    Raises:
        ConfigError: DeepSpeed is not installed, or its JSON contradicts the settings.
    """
    if config.deepspeed is None:
        return None
    check_deepspeed_is_installed()
    options = fill_zero(
        read_zero(config.deepspeed),
        config,
        batch_size=batch_size,
        num_ranks=ranks.size,
        precision=config.precision if precision is None else precision.name,
    )
    stage = options["zero_optimization"]["stage"]
    if precision is not None and ranks.size == 1:
        notice(f"parallel: one process has nothing to spread: ZeRO-{stage} is not used")
    elif precision is not None:
        notice(f"parallel: {_SPREAD[stage]} spread over {ranks.size} ranks (DeepSpeed ZeRO-{stage})")
    return None if ranks.size == 1 else options
