"""Settings of the models room: which policy, which reference, which adapter. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.device.fused.table import OPERATORS
from burnish.errors import ConfigError
from burnish.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    Range,
    check_choices,
    check_ranges,
    setting_error,
)


@dataclass(kw_only=True)
class ModelSettings:
    """The policy."""

    model_name_or_path: str | None = None
    """The policy to train: a local folder or a hub id."""
    model_revision: str = "main"
    """Branch, tag or commit of a hub model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources that you trust."""
    attn_implementation: Literal["sdpa", "eager", "flex_attention"] | None = None
    """Attention kernel; None takes sdpa where the model has it, else eager. flex_attention spares tree rows their dense
    mask, on CUDA only."""
    fused_operators: list[str] = field(default_factory=lambda: ["auto"])
    """Fused operators on an NPU: attention, cross_entropy, rms_norm, rotary, swiglu; auto takes what model and
    card can use; none takes none."""
    disable_dropout: bool = True
    """Turn off the base model's dropout; LoRA's own stays as lora_dropout says."""


@dataclass(kw_only=True)
class ReferenceSettings:
    """The reference that the policy is compared with."""

    ref_model_name_or_path: str | None = None
    """Another model as reference; by default the policy's own start."""
    ref_dtype: Literal["float32", "bfloat16"] | None = None
    """Storage of the reference's weights; None stores it as the policy is, so that rewards start at exactly 0."""
    reference_cache: Literal["disk", "memory"] = "disk"
    """Where the reference's log-probabilities are kept once scored: for later runs too, or for this one only."""
    reference_cache_dir: str | None = None
    """Folder of the disk cache; default ~/.cache/burnish/reference (or $BURNISH_CACHE/reference)."""
    precompute_ref_log_probs: bool = False
    """Let the reference score all rows before the first step and then free its memory; else it scores as rows come."""


@dataclass(kw_only=True)
class MovingReferenceSettings:
    """A reference that follows the policy (TR-DPO, arXiv 2404.09656)."""

    sync_ref_model: bool = False
    """Let the reference follow the policy (TR-DPO): every ref_model_sync_steps steps, α·policy + (1-α)·reference."""
    ref_model_mixup_alpha: float = 0.6
    """α of the moving reference, in (0, 1]; adapters take 1 only, a copy."""
    ref_model_sync_steps: int = 512
    """Optimizer steps between two moves of the reference; ≥ 1."""


@dataclass(kw_only=True)
class RouterSettings:
    """Mixture-of-experts models."""

    router_aux_loss_coef: float | None = None
    """Weight of the loss that balances the experts, over the whole step; None takes the model's own; 0 is off; ≥ 0."""


@dataclass(kw_only=True)
class AdapterSettings:
    """Low-rank adapters through peft."""

    use_peft: bool = False
    """Train a LoRA adapter instead of all weights; the reference is then the adapter switched off."""
    lora_r: int = 16
    """Rank of the adapter; ≥ 1."""
    lora_alpha: int = 32
    """Scale of the adapter; its output is multiplied by lora_alpha / lora_r; > 0."""
    lora_dropout: float = 0.0
    """Dropout on the adapter's input, probability in [0, 1)."""
    lora_target_modules: list[str] | None = None
    """Names of the layers that get an adapter, or all-linear; None takes peft's list for the architecture."""
    lora_target_parameters: list[str] | None = None
    """Names of bare parameters that get an adapter (experts of mixture-of-experts models)."""
    lora_modules_to_save: list[str] | None = None
    """Layers trained in full and saved beside the adapter."""
    use_rslora: bool = False
    """Rank-stabilised scale lora_alpha / sqrt(lora_r) (arXiv 2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed adapters (arXiv 2402.09353)."""


MOVING_RANGES = {"ref_model_mixup_alpha": Range(above=0, most=1), "ref_model_sync_steps": COUNT}
ROUTER_RANGES = {"router_aux_loss_coef": NOT_NEGATIVE}
ADAPTER_RANGES = {"lora_r": COUNT, "lora_alpha": POSITIVE, "lora_dropout": PROBABILITY}


def check_router_settings(settings: RouterSettings) -> None:
    """Raise ConfigError for a weight that is out of range."""
    check_ranges(settings, ROUTER_RANGES)


def check_model_settings(settings: ModelSettings) -> None:
    """Raise ConfigError for the first setting of the policy that is not allowed."""
    known = {"auto", "none", *OPERATORS}
    names = settings.fused_operators
    if set(names) - known or (len(names) > 1 and set(names) & {"auto", "none"}):
        raise setting_error(settings, "fused_operators", f"must be auto, none, or some of {', '.join(OPERATORS)}")
    check_choices(settings, ModelSettings)


def check_reference_settings(settings: ReferenceSettings) -> None:
    """Raise ConfigError for the first setting of the reference that is not allowed."""
    check_choices(settings, ReferenceSettings)


def check_moving_reference_settings(settings: Any) -> None:
    """Raise ConfigError for what is out of range, has no effect, or meets what excludes a reference that moves.

    Args:
        settings: those of a method with MovingReferenceSettings, ReferenceSettings and AdapterSettings.
    """
    check_ranges(settings, MOVING_RANGES)
    if not settings.sync_ref_model:
        for name in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
            if getattr(settings, name) != getattr(MovingReferenceSettings, name):
                raise ConfigError(f"--{name} has no effect without --sync_ref_model: give it, or leave both out")
        return
    if settings.use_peft and settings.ref_model_mixup_alpha != 1:
        raise ConfigError("--sync_ref_model with an adapter copies it: give --ref_model_mixup_alpha 1")
    if settings.precompute_ref_log_probs:
        raise ConfigError("--precompute_ref_log_probs and --sync_ref_model: a moving reference is not known before")


def check_adapter_settings(settings: AdapterSettings) -> None:
    """Raise ConfigError for the first setting of the adapter that is out of range."""
    check_ranges(settings, ADAPTER_RANGES)
    for name in ("lora_target_modules", "lora_target_parameters", "lora_modules_to_save"):
        if getattr(settings, name) == []:
            raise setting_error(settings, name, "names nothing; leave it out")
