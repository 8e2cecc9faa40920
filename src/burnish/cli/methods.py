"""Which commands train, and which settings each has; imports nothing heavy."""

from __future__ import annotations

import dataclasses
from typing import Any

import burnish
from burnish.data.kinds import GroupKind

TRAINING = {"dpo": "DPO", "sft": "SFT", "kto": "KTO", "reward": "Reward"}
"""Commands that train, and what the public names of their settings and trainer begin with."""
KINDS: dict[str, GroupKind] = {"dpo": "preference", "sft": "sft", "kto": "unpaired", "reward": "ranking"}
"""What these commands learn from: their trainers' `kind`, known before torch is there."""


def config_type_of(name: str) -> type[Any]:
    """The settings of a command of TRAINING."""
    return getattr(burnish, f"{TRAINING[name]}Config")


def trainer_type_of(name: str) -> type[Any]:
    """The trainer of a command of TRAINING; imports torch."""
    return getattr(burnish, f"{TRAINING[name]}Trainer")


def methods_with(setting: str) -> list[str]:
    """The commands that have a setting."""
    return [
        name for name in TRAINING if any(field.name == setting for field in dataclasses.fields(config_type_of(name)))
    ]
