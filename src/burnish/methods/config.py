"""What the settings of all methods share: the rooms' settings in one flat dataclass, checked. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.data.settings import DataSettings, check_data_settings
from burnish.engine.settings import TrainingSettings, check_training_settings
from burnish.methods.trl_names import HasTRLNames, TakesTRLNames
from burnish.models.settings import (
    AdapterSettings,
    ModelSettings,
    MovingReferenceSettings,
    ReferenceSettings,
    RouterSettings,
    check_adapter_settings,
    check_model_settings,
    check_moving_reference_settings,
    check_reference_settings,
    check_router_settings,
)


@dataclass(kw_only=True)
class MethodConfig(
    DataSettings, ModelSettings, AdapterSettings, TrainingSettings, HasTRLNames, metaclass=TakesTRLNames
):
    """Settings of every method; the defaults are those of the reference job. A call takes TRL's names as well."""

    def __post_init__(self) -> None:
        """Take a single name for a list of one, as TRL does, and raise ConfigError for what is not allowed."""
        self.report_to = list(self.report_to) if isinstance(self.report_to, list | tuple) else [self.report_to]
        self.report_to = [name for name in self.report_to if name != "none"]
        check_data_settings(self)
        check_model_settings(self)
        check_adapter_settings(self)
        if isinstance(self, ReferenceSettings):
            check_reference_settings(self)
        if isinstance(self, MovingReferenceSettings):
            check_moving_reference_settings(self)
        if isinstance(self, RouterSettings):
            check_router_settings(self)
        check_training_settings(self)


def global_batch_size(config: TrainingSettings, num_ranks: int = 1) -> int:
    """Groups of an optimizer step over all ranks."""
    if config.global_batch_size is not None:
        return config.global_batch_size
    return config.per_device_train_batch_size * config.gradient_accumulation_steps * num_ranks


@dataclass(kw_only=True)
class StageDefaults:
    """Settings that other stages than DPO begin with other defaults, those of TRL."""

    per_device_train_batch_size: int = 8
    """Rows per device and accumulation step; only its product with gradient_accumulation_steps matters here; ≥ 1."""
    gradient_accumulation_steps: int = 1
    """Multiplies per_device_train_batch_size into the rows of an optimizer step; ≥ 1."""
    num_train_epochs: float = 3.0
    """Passes over the training rows; > 0."""
    logging_steps: float = 10
    """Optimizer steps between records; a value in (0, 1) is a share of all steps; > 0."""
