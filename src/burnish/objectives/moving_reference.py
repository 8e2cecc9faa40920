"""A reference that follows the policy: π_ref ← α π + (1-α) π_ref every N steps (TR-DPO, 2404.09656)."""

from __future__ import annotations

from torch import Tensor

from burnish.errors import ConfigError


def mix(policy: Tensor, reference: Tensor, *, alpha: float) -> Tensor:
    """α policy + (1-α) reference, of one parameter, any shape, in the reference's dtype; α = 1 copies exactly.

    Source: Gorbatovski et al. (TR-DPO), 2404.09656: soft updates have α < 1, hard ones α = 1.
    """
    if alpha == 1:
        return policy.detach().to(reference.dtype)
    return reference.detach().lerp(policy.detach().to(reference.dtype), alpha)


def is_due(step: int, *, every: int) -> bool:
    """Whether the reference moves after optimizer step `step` (counted from 1)."""
    return step % every == 0


def check_moving_reference(*, alpha: float, every: int, uses_adapter: bool) -> None:
    """Refuse values out of range, and soft updates of adapters.

    Raises:
        ConfigError: names the setting, why, and what to do.
    """
    if not 0 < alpha <= 1:
        raise ConfigError(f"ref_model_mixup_alpha must be in (0, 1], not {alpha}")
    if every < 1:
        raise ConfigError(f"ref_model_sync_steps must be 1 or more, not {every}")
    if uses_adapter and alpha != 1:
        raise ConfigError(
            f"ref_model_mixup_alpha {alpha} cannot mix adapters: mixing A and B is not mixing BA; "
            "take 1 (a hard copy), or train all weights"
        )
