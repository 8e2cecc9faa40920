"""Which settings must be the same for a resumed run to be the run that it resumes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

# Settings that cannot alter an update: where things are written, how often, how fast, and what is shown.
HARMLESS = frozenset(
    {
        "output_dir", "overwrite", "resume_from_checkpoint", "allow_changed", "run_name", "report_to", "disable_tqdm",
        "dry_run", "devices", "device_memory", "debug", "num_samples", "sample_max_new_tokens",
        "logging_strategy", "logging_steps",
        "logging_first_step", "eval_strategy", "eval_steps", "eval_on_start", "save_strategy", "save_steps",
        "save_total_limit", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "data_cache_dir",
        "reference_cache_dir", "dataset_num_proc", "per_device_eval_batch_size", "eval_dataset_name", "eval_data",
        "max_eval_samples", "dataset_test_split", "hub", "on_bad_row", "strict_data", "token_metrics", "device",
        "num_threads", "lazy_tokenise", "profile", "npu_jit_compile", "parallel", "deepspeed",
        "allow_partial_resume", "async_save", "save_failure", "max_time", "max_skipped_steps", "hang_timeout",
        "health_chosen_fall", "health_saturation", "health_length_correlation",
    }
)  # fmt: skip

# Settings whose effect is fingerprinted by content instead, so that a moved folder does not matter.
BY_CONTENT = frozenset(
    {
        "dataset_name", "dataset_config", "dataset_train_split", "max_train_samples", "max_length", "truncation_mode",
        "max_prompt_length", "max_completion_length", "eos_token",
        "chat_template_path", "pad_token", "model_name_or_path", "model_revision", "ref_model_name_or_path",
        "trust_remote_code",
    }
)  # fmt: skip

# Settings that are resolved into others before the run.
RESOLVED = frozenset(
    {"per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "precision",
     "max_tokens_per_micro_batch", "self_check"}
)  # fmt: skip


def update_settings(config: Any, **resolved: Any) -> dict[str, str]:
    """Every setting that alters an update, as text; resolved values by their own names win."""
    skipped = HARMLESS | BY_CONTENT | RESOLVED
    settings = {name: value for name, value in asdict(config).items() if name not in skipped} | resolved
    return {name: _as_text(value) for name, value in sorted(settings.items())}


def default_settings(config: Any) -> dict[str, str]:
    """What `update_settings` gives for settings that nobody has set, but for those that are resolved."""
    return update_settings(type(config)())


def _as_text(value: Any) -> str:
    """JSON, in which 0 and 0.0 are one: files and flags write the same number either way."""
    plain = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(plain, sort_keys=True, default=str)
