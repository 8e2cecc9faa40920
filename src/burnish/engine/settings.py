"""Settings of the engine: steps, optimizer, logging, saving. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.engine.duration import parse_duration
from burnish.engine.sizes import parse_size
from burnish.engine.zero_settings import read_zero
from burnish.errors import ConfigError
from burnish.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    STEPS,
    Range,
    check_choices,
    check_ranges,
    setting_error,
)


@dataclass(kw_only=True)
class TrainingSettings:
    """How long, how fast, what is written and when. Names and meanings are those of transformers' TrainingArguments."""

    output_dir: str | None = None
    """Run directory; default runs/<method>-<model>-<date>."""
    overwrite: bool = False
    """Start afresh in an output folder that holds an earlier run, and delete that run."""
    resume_from_checkpoint: str | None = None
    """auto takes the newest good checkpoint of output_dir; a path takes that checkpoint."""
    allow_changed: list[str] = field(default_factory=list)
    """Fingerprints that may differ from the resumed checkpoint's, such as data or learning_rate."""
    allow_partial_resume: bool = False
    """Resume from a checkpoint that lost its optimizer or random states: these start afresh, which is recorded."""
    async_save: bool = False
    """Write checkpoints while training goes on, from a copy in host memory; same guarantees."""
    save_failure: Literal["stop", "continue"] = "stop"
    """When a checkpoint cannot be written: stop the run with code 3, or warn, go on and try again at the next save."""
    max_time: str | None = None
    """Time that the run may take, such as 3h50m: shortly before, it saves a checkpoint and exits with code 75."""
    per_device_train_batch_size: int = 2
    """Groups per device and accumulation step; only its product with gradient_accumulation_steps matters here; ≥ 1."""
    gradient_accumulation_steps: int = 8
    """Multiplies per_device_train_batch_size into the groups of an optimizer step; ≥ 1."""
    global_batch_size: int | None = None
    """Groups of an optimizer step over all devices; overrides the two above; ≥ 1."""
    per_device_eval_batch_size: int = 8
    """Accepted for TRL's sake; evaluation is cut by tokens like training. Only eval_steps_per_second uses it; ≥ 1."""
    max_tokens_per_micro_batch: int | None = None
    """Tokens, padding included, computed at once; ≥ 1. None times a few, or has a formula. Never changes the update."""
    num_train_epochs: float = 1.0
    """Passes over the training rows; > 0."""
    max_steps: int = -1
    """Optimizer steps; overrides num_train_epochs when > 0; ≥ -1."""
    train_sampling_strategy: Literal["random", "sequential"] = "random"
    """Order of the rows: shuffled anew each epoch from the seed, or as they stand."""
    learning_rate: float = 5e-7
    """Peak learning rate; ≥ 0."""
    lr_scheduler_type: str = "linear"
    """Shape of the learning rate over the run: linear, cosine, constant, constant_with_warmup, … as in transformers."""
    lr_scheduler_kwargs: dict[str, Any] | None = None
    """Further arguments of the schedule."""
    warmup_steps: float = 0
    """Steps of linear warm-up; a value in (0, 1) is a share of all steps; ≥ 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay of all weights but biases and norms; ≥ 0."""
    adam_beta1: float = 0.9
    """Decay of AdamW's first moment, in [0, 1)."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment, in [0, 1)."""
    adam_epsilon: float = 1e-8
    """AdamW's ε; > 0."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global L2 norm; 0 turns clipping off; ≥ 0."""
    max_skipped_steps: int = 3
    """Steps in a row that may be skipped for a loss or gradient that is not finite, before the run stops; ≥ 1."""
    loss_spike: Literal["log", "skip", "stop"] = "log"
    """What to do when a step's loss spikes: only say so, skip the update, or stop the run with code 4."""
    loss_spike_sigmas: float = 6.0
    """Standard deviations above the window's mean from which a loss is a spike; > 0."""
    loss_spike_window: int = 128
    """Steps that mean and deviation are taken over; spikes are looked for after 16 (or half a window, if less); ≥ 8."""
    health_chosen_fall: float | None = 0.2
    """Nats a token by which chosen completions may become less likely before the log says so; > 0; None never does."""
    health_saturation: float | None = 0.95
    """Share of pairs in a window that may be too far apart to teach anything before the log says so; in (0, 1)."""
    health_length_correlation: float | None = 0.7
    """Correlation of rewards with lengths, of either sign, from which the log says so; in (0, 1); None never does."""
    hang_timeout: str | None = None
    """Longest time without a micro-batch, such as 10m; then all stacks are written and the run aborts with code 134."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    activation_offloading: bool = False
    """Hold what the backward pass needs in the host's memory: for accelerators without room for it; costs time."""
    fused_layers: bool = True
    """On the CPU, compute known linear, norm and SwiGLU layers faster and in less memory; equal up to rounding."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Compute precision over float32 master weights; auto is bf16 where the accelerator has it, fp32 on the CPU."""
    device: Literal["auto", "npu", "cuda", "cpu"] = "auto"
    """Device to run on; auto takes the first of npu, cuda, cpu that works and says why."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Several devices: ddp keeps the whole model on each; fsdp spreads weights, gradients and optimizer (FSDP2)."""
    deepspeed: str | dict[str, Any] | None = None
    """DeepSpeed's JSON, for ZeRO 1 or 2: optimizer state, or that and gradients, spread over ranks; needs DeepSpeed."""
    num_threads: int | None = None
    """CPU threads; ≥ 1. None keeps torch's choice."""
    npu_jit_compile: bool = False
    """Let an NPU compile operators for each new shape, instead of taking CANN's prebuilt ones."""
    profile: int = 0
    """Record so many steps, after the first two, with the device's own profiler into profile/ of the run; ≥ 0."""
    seed: int = 42
    """Seed of order, dropout and new weights, in [0, 4294967295]."""
    deterministic: bool = False
    """Choose everything by formula, nothing by timing, and use deterministic kernels."""
    logging_strategy: Literal["no", "steps", "epoch"] = "steps"
    """When a training record is written."""
    logging_steps: float = 25
    """Optimizer steps between records; a value in (0, 1) is a share of all steps; > 0."""
    logging_first_step: bool = False
    """Write a record after the first step too."""
    eval_strategy: Literal["no", "steps", "epoch"] | None = None
    """When to evaluate; None evaluates every eval_steps when there are evaluation rows."""
    eval_steps: float = 50
    """Optimizer steps between evaluations; a value in (0, 1) is a share of all steps; > 0."""
    eval_on_start: bool = False
    """Evaluate before the first step."""
    save_strategy: Literal["no", "steps", "epoch", "best"] = "steps"
    """When a checkpoint is written; best writes one whenever metric_for_best_model improves."""
    save_steps: float = 500
    """Optimizer steps between checkpoints; a value in (0, 1) is a share of all steps; > 0."""
    save_total_limit: int | None = None
    """Checkpoints to keep, the newest and the best; ≥ 1. None keeps all."""
    load_best_model_at_end: bool = False
    """Put the best evaluated step's weights into the final model; every improvement then writes a checkpoint."""
    metric_for_best_model: str | None = None
    """Evaluation metric that says what is best, with or without eval_; default eval_loss, or the first set's."""
    greater_is_better: bool | None = None
    """Whether a greater metric is better; None is True unless the metric's name ends in loss."""
    report_to: list[str] = field(default_factory=list)
    """Trackers that get the records: tensorboard, wandb, swanlab, trackio, mlflow."""
    run_name: str | None = None
    """Name of the run in trackers; default the output folder's name."""
    num_samples: int = 3
    """Held-out prompts answered before and after training and kept in samples.jsonl; 0 turns it off; ≥ 0."""
    sample_max_new_tokens: int = 128
    """Longest sample, in tokens; ≥ 1."""
    token_metrics: bool = False
    """Log entropy and mean_token_accuracy as well; costs another pass over the head's logits."""
    self_check: bool = True
    """Compare shared prompts with separate rows on the first micro-batch, and fall back where they differ."""
    lazy_tokenise: bool = False
    """Tokenise in a process of its own while the model is loaded and the first step begun; the result is the same."""
    disable_tqdm: bool = False
    """No progress bars, even on a terminal."""
    dry_run: bool = False
    """Prepare everything, print the plan, and stop."""
    devices: int | None = None
    """Devices that a dry run plans for, from the model's config alone: the memory of each is printed; ≥ 1."""
    device_memory: str | None = None
    """Memory of each device, such as 64GiB: a dry run says whether the run fits, and which settings make it fit."""
    debug: bool = False
    """Show tracebacks of errors."""


RANGES = {
    "per_device_train_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "global_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "max_tokens_per_micro_batch": COUNT,
    "num_train_epochs": POSITIVE,
    "max_steps": Range(least=-1, whole=True),
    "learning_rate": NOT_NEGATIVE,
    "warmup_steps": Range(least=0, share=True),
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": PROBABILITY,
    "adam_beta2": PROBABILITY,
    "adam_epsilon": POSITIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "max_skipped_steps": COUNT,
    "loss_spike_sigmas": POSITIVE,
    "loss_spike_window": Range(least=8, whole=True),
    "health_chosen_fall": POSITIVE,
    "health_saturation": Range(above=0, below=1),
    "health_length_correlation": Range(above=0, below=1),
    "num_threads": COUNT,
    "devices": COUNT,
    "profile": Range(least=0, whole=True),
    "seed": Range(least=0, most=2**32 - 1, whole=True),
    "logging_steps": STEPS,
    "eval_steps": STEPS,
    "save_steps": STEPS,
    "save_total_limit": COUNT,
    "num_samples": Range(least=0, whole=True),
    "sample_max_new_tokens": COUNT,
}

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
)
"""transformers' schedules that are functions of the step alone."""

TRACKERS = ("tensorboard", "wandb", "swanlab", "trackio", "mlflow")


def check_training_settings(settings: TrainingSettings) -> None:
    """Raise ConfigError for the first setting of the engine that is out of range or contradicts another."""
    check_ranges(settings, RANGES)
    check_choices(settings, TrainingSettings)
    if settings.lr_scheduler_type not in SCHEDULES:
        raise setting_error(settings, "lr_scheduler_type", f"must be one of {', '.join(SCHEDULES)}")
    for name in settings.report_to:
        if name not in TRACKERS:
            raise setting_error(settings, "report_to", f"must be of {', '.join(TRACKERS)}, or none")
    _check_parallel(settings)
    _check_amounts(settings)
    _check_best(settings)


def _check_parallel(settings: TrainingSettings) -> None:
    """Refuse what slices of a model, or of its optimizer, cannot do."""
    if settings.deepspeed is not None:
        read_zero(settings.deepspeed)
        if settings.parallel == "fsdp":
            raise ConfigError("--deepspeed and --parallel fsdp spread the same things: leave one out.")
        if settings.precision == "fp16":
            raise ConfigError("--deepspeed has no loss scale that all ranks share: take --precision bf16 or fp32.")
    if settings.parallel != "fsdp":
        return
    if settings.async_save:
        raise ConfigError("--async_save has no slices to copy yet: leave it out, or take --parallel ddp.")
    if settings.precision == "fp16":
        raise ConfigError("--parallel fsdp has no loss scale that all ranks share: take --precision bf16 or fp32.")
    if getattr(settings, "sync_ref_model", False):
        raise ConfigError("--sync_ref_model mixes whole weights: leave it out, or take --parallel ddp.")


def _check_amounts(settings: TrainingSettings) -> None:
    try:
        parse_size(settings.device_memory or "1GiB")
    except ValueError as error:
        raise setting_error(settings, "device_memory", "must be an amount with its unit, such as 64GiB") from error
    for name in ("max_time", "hang_timeout"):
        text = getattr(settings, name)
        if text is None:
            continue
        try:
            parse_duration(text)
        except ValueError as error:
            raise setting_error(settings, name, "must be a duration such as 3h50m, 90m or 45s") from error


def _check_best(settings: TrainingSettings) -> None:
    """What asks for the best checkpoint needs evaluations; every improvement then writes a checkpoint."""
    asks = "--load_best_model_at_end" if settings.load_best_model_at_end else None
    asks = "--save_strategy best" if settings.save_strategy == "best" else asks
    if asks is not None and settings.eval_strategy == "no":
        raise ConfigError(f"{asks} needs evaluations; set --eval_strategy steps or epoch")
