"""Optimizer and learning-rate schedule from settings."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer

from burnish.device.optimizer import build_adamw
from burnish.device.pick import Device
from burnish.device.precision import Precision
from burnish.engine.settings import TrainingSettings
from burnish.errors import ConfigError


def build_optimizer(model: nn.Module, settings: TrainingSettings, *, device: Device, precision: Precision) -> Optimizer:
    """AdamW over what is trainable; biases and norms (one axis) are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return build_adamw(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        kind=device.kind,
        precision=precision.name,
    )


def build_schedule(optimizer: Optimizer, settings: TrainingSettings, total_steps: int) -> Any:
    """Make the learning-rate schedule by transformers' names.

    Raises:
        ConfigError: the name is unknown, or its arguments do not fit.
    """
    from transformers.optimization import get_scheduler

    try:
        return get_scheduler(
            settings.lr_scheduler_type,
            optimizer,
            num_warmup_steps=warmup_steps(settings, total_steps),
            num_training_steps=total_steps,
            scheduler_specific_kwargs=settings.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--lr_scheduler_type {settings.lr_scheduler_type}: {str(error).splitlines()[0]}") from error


def warmup_steps(settings: TrainingSettings, total_steps: int) -> int:
    """Steps of warm-up; a value below 1 is a share of all steps, rounded up."""
    share = settings.warmup_steps
    return math.ceil(share * total_steps) if 0 < share < 1 else int(share)
