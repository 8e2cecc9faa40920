"""burnish post-trains language models: a model and preferences in, a better model out.

Everything public is imported on first use, so that `import burnish` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from burnish.device.vendor import install_guard

if TYPE_CHECKING:
    from burnish.cli.script_parser import TrlParser as TrlParser
    from burnish.methods.dpo import DPOConfig as DPOConfig
    from burnish.methods.kto import KTOConfig as KTOConfig
    from burnish.methods.preference import DPOTrainer as DPOTrainer
    from burnish.methods.reward import RewardConfig as RewardConfig
    from burnish.methods.rewarding import RewardTrainer as RewardTrainer
    from burnish.methods.script_arguments import DatasetMixtureConfig as DatasetMixtureConfig
    from burnish.methods.script_arguments import ModelConfig as ModelConfig
    from burnish.methods.script_arguments import ScriptArguments as ScriptArguments
    from burnish.methods.script_arguments import get_dataset as get_dataset
    from burnish.methods.script_arguments import get_kbit_device_map as get_kbit_device_map
    from burnish.methods.script_arguments import get_peft_config as get_peft_config
    from burnish.methods.script_arguments import get_quantization_config as get_quantization_config
    from burnish.methods.sft import SFTConfig as SFTConfig
    from burnish.methods.supervised import SFTTrainer as SFTTrainer
    from burnish.methods.unpaired import KTOTrainer as KTOTrainer

__version__ = "0.1.0"

_HOMES = {
    "DPOConfig": "burnish.methods.dpo",
    "DPOTrainer": "burnish.methods.preference",
    "KTOConfig": "burnish.methods.kto",
    "KTOTrainer": "burnish.methods.unpaired",
    "RewardConfig": "burnish.methods.reward",
    "RewardTrainer": "burnish.methods.rewarding",
    "SFTConfig": "burnish.methods.sft",
    "SFTTrainer": "burnish.methods.supervised",
    "TrlParser": "burnish.cli.script_parser",
    **dict.fromkeys(
        (
            "DatasetMixtureConfig", "ModelConfig", "ScriptArguments", "get_dataset", "get_kbit_device_map",
            "get_peft_config", "get_quantization_config",
        ),
        "burnish.methods.script_arguments",
    ),
}  # fmt: skip

_INSTEAD = {
    **dict.fromkeys(("ORPOConfig", "ORPOTrainer"), "DPOConfig(loss_type='orpo') and DPOTrainer"),
    **dict.fromkeys(("CPOConfig", "CPOTrainer"), "DPOConfig(loss_type='cpo') or 'simpo', and DPOTrainer"),
    **dict.fromkeys(("BCOConfig", "BCOTrainer"), "KTOConfig(loss_type='bco') and KTOTrainer"),
    **dict.fromkeys(
        ("GRPOConfig", "GRPOTrainer", "RLOOConfig", "RLOOTrainer", "PPOConfig", "PPOTrainer", "OnlineDPOTrainer"),
        "trl itself: burnish learns from rows, and generates none",
    ),
    "create_reference_model": "nothing: without ref_model the reference is the policy's start",
    **dict.fromkeys(("setup_chat_format", "clone_chat_template"), "the setting chat_template_path"),
    **dict.fromkeys(
        ("apply_chat_template", "maybe_apply_chat_template", "extract_prompt", "maybe_extract_prompt"),
        "the rows as they are: they are recognised, rendered and split by themselves",
    ),
    **dict.fromkeys(
        ("DataCollatorForCompletionOnlyLM", "DataCollatorForPreference"),
        "nothing: rows are laid out by burnish; completion_only_loss and assistant_only_loss say what counts",
    ),
    "RichProgressCallback": "nothing: progress bars are there",
}
"""Names of TRL's that are not here, and what to use."""

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "DatasetMixtureConfig",
    "KTOConfig",
    "KTOTrainer",
    "ModelConfig",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "ScriptArguments",
    "TrlParser",
    "__version__",
    "get_dataset",
    "get_kbit_device_map",
    "get_peft_config",
    "get_quantization_config",
]

# Before anything imports torch: a half-installed vendor package would make that import fail.
install_guard()


def __getattr__(name: str) -> Any:
    if name in _INSTEAD:
        raise ImportError(f"burnish has no {name}; use {_INSTEAD[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'burnish' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
