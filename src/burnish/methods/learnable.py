"""Is there anything to learn? Said before the first step, not after a run whose loss stood still."""

from __future__ import annotations

from typing import Any

from torch import nn

from burnish.console import warn
from burnish.data.store import GroupStore
from burnish.errors import ConfigError, DataError


def check_learnable(config: Any, policy: nn.Module, groups: GroupStore) -> None:
    """Refuse a run that can change nothing, and warn of a learning rate of 0, which some use to measure.

    Raises:
        ConfigError: no parameter is trained.
        DataError: no token of any row counts, or every row or token has weight 0.
    """
    if not any(parameter.requires_grad and parameter.numel() for parameter in policy.parameters()):
        raise ConfigError(
            "nothing to learn: no parameter of the model is trained, all are frozen.\n"
            "Unfreeze some, or train an adapter with --use_peft."
        )
    if int(groups.num_counted.sum()) == 0:
        raise DataError(
            f"nothing to learn: no token of the {len(groups):,} rows is counted.\n"
            "Look at one with `burnish explain`; --assistant_only_loss and a wrong template mask whole rows."
        )
    if groups.total_weight == 0:
        raise DataError(f"nothing to learn: all {len(groups):,} rows have weight 0. Leave the column weight out.")
    if groups.all_have("token_weights") and not any(_counts(group) for group in groups):
        raise DataError(f"nothing to learn: all token weights of the {len(groups):,} rows are 0.")
    if config.learning_rate == 0:
        warn("the learning rate is 0: losses are computed, and no weight will change")


def _counts(group: Any) -> bool:
    return any(weights.any() for weights in group.token_weights)
