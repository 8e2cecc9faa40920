"""The optimizer from settings."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from burnish.device.optimizer import build_adamw
from burnish.device.pick import Device
from burnish.device.precision import Precision
from burnish.engine.settings import TrainingSettings


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
