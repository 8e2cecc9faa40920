"""burnish post-trains language models: a model and preferences in, a better model out.

Everything public is imported on first use, so that `import burnish` costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from burnish.device.vendor import install_guard

if TYPE_CHECKING:
    from burnish.methods.dpo import DPOConfig as DPOConfig
    from burnish.methods.kto import KTOConfig as KTOConfig
    from burnish.methods.preference import DPOTrainer as DPOTrainer
    from burnish.methods.reward import RewardConfig as RewardConfig
    from burnish.methods.rewarding import RewardTrainer as RewardTrainer
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
}

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "KTOConfig",
    "KTOTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "__version__",
]

# Before anything imports torch: a half-installed vendor package would make that import fail.
install_guard()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'burnish' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
