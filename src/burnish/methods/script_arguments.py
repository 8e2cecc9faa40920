"""What TRL's own scripts import beside a config and a trainer: their arguments, and what they make of them.

`from trl import DPOConfig, DPOTrainer, ModelConfig, ScriptArguments, TrlParser, get_peft_config` works with burnish in
trl's place. Imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from burnish.errors import ConfigError
from burnish.models.settings import ADAPTER_RANGES, AdapterSettings
from burnish.ranges import check_ranges
from burnish.trl_flags import TRL_FLAGS, Refused

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(kw_only=True)
class ScriptArguments:
    """Which rows a script loads."""

    dataset_name: str | None = None
    """A hub id, or a local file or folder."""
    dataset_config: str | None = None
    """Name of the hub data set's configuration."""
    dataset_train_split: str = "train"
    """Split to train on."""
    dataset_test_split: str = "test"
    """Split to evaluate on."""
    dataset_streaming: bool = False
    """Always false: rows are prepared once and read from disk."""
    ignore_bias_buffers: bool = False
    """Always false: gradients are summed once a step, without hooks that buffers could disturb."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is refused by name."""
        _refuse(self, "dataset_streaming")


@dataclass(kw_only=True)
class ModelConfig(AdapterSettings):
    """Which model a script loads, and which adapter it trains."""

    model_name_or_path: str | None = None
    """The policy to train: a local folder or a hub id."""
    model_revision: str = "main"
    """Branch, tag or commit of a hub model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources that you trust."""
    dtype: str | None = "float32"
    """Precision of the computation: auto, float32, bfloat16 or float16. Weights are stored in float32."""
    attn_implementation: str | None = None
    """Attention kernel: sdpa, eager or, on CUDA, flex_attention."""
    lora_task_type: str = "CAUSAL_LM"
    """Always CAUSAL_LM."""
    load_in_8bit: bool = False
    """Always false."""
    load_in_4bit: bool = False
    """Always false."""
    bnb_4bit_quant_type: str = "nf4"
    """Has no meaning without load_in_4bit."""
    use_bnb_nested_quant: bool = False
    """Always false."""
    bnb_4bit_quant_storage: str | None = None
    """Always none."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is refused by name, or out of range."""
        for name in ("load_in_8bit", "load_in_4bit", "use_bnb_nested_quant", "bnb_4bit_quant_storage"):
            _refuse(self, name)
        check_ranges(self, ADAPTER_RANGES)


@dataclass(kw_only=True)
class DatasetMixtureConfig:
    """Always empty: a mixture of data sets is a folder of files here."""

    datasets: list[Any] = field(default_factory=list)
    """Always empty."""
    streaming: bool = False
    """Always false."""
    test_split_size: float | None = None
    """Always none."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a mixture."""
        for name in ("datasets", "streaming", "test_split_size"):
            _refuse(self, name)


def _refuse(settings: Any, name: str) -> None:
    value, answer = getattr(settings, name), TRL_FLAGS[name]
    assert isinstance(answer, Refused)
    if value not in answer.harmless:
        raise ConfigError(f"{type(settings).__name__}({name}={value!r}) is not supported; {answer.instead}")


def get_peft_config(model_args: ModelConfig) -> LoraConfig | None:
    """Give peft's configuration of the adapter that the arguments ask for, None without use_peft."""
    if not model_args.use_peft:
        return None
    from burnish.models.adapters import adapter_config

    return adapter_config(model_args)


def get_quantization_config(model_args: ModelConfig) -> None:
    """Give nothing: ModelConfig has refused quantised weights by name before this is called."""


def get_kbit_device_map() -> None:
    """Give nothing: no weights are quantised, and --device says where they are."""


def get_dataset(mixture_config: DatasetMixtureConfig) -> Any:
    """Refuse by name: there is no mixture of data sets.

    Raises:
        ConfigError: always, with what to use instead.
    """
    raise ConfigError(
        "get_dataset is not supported: put the files into one folder and give that: --dataset_name FOLDER, or "
        "train_dataset=datasets.concatenate_datasets([...])"
    )
