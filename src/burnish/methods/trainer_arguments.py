"""Arguments of TRL's and transformers' trainers that burnish's do not take: each is answered by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from burnish.errors import ConfigError

_OPTIMIZER = "the optimizer is AdamW with the settings learning_rate, lr_scheduler_type, weight_decay and adam_*"

REFUSED = {
    "data_collator": "rows are laid out by burnish, so that a prompt is computed once",
    "compute_metrics": "metrics are the method's own; a callback sees each record in on_log",
    "compute_loss_func": "a loss of your own is DPOConfig(loss_type=function); see docs/en/objectives.md",
    "preprocess_logits_for_metrics": "full logits never exist",
    "optimizers": _OPTIMIZER,
    "optimizer_cls_and_kwargs": _OPTIMIZER,
    "quantization_config": "train an adapter over full weights: use_peft=True with precision='bf16'",
    "formatting_func": "write the column text first: train_dataset.map(lambda row: {'text': ...})",
    "model_init": "give the model itself, or its name",
}
"""What to do instead. None, and a tuple of Nones, ask for nothing and pass."""


TAKEN = ("model", "args", "train_dataset", "eval_dataset", "processing_class", "peft_config", "callbacks")


def check_arguments(trainer: Any, given: Mapping[str, Any], settings: set[str]) -> None:
    """Refuse what asks for something that is not there.

    Args:
        trainer: its class says what it refuses.
        given: arguments by name.
        settings: names of its settings: earlier TRL took some of them here.

    Raises:
        ConfigError: the first argument that is not supported, with what to use instead.
    """
    kind, refused = type(trainer), trainer.refused
    for name, value in given.items():
        where = f"{kind.__name__}({name}=…)"
        if name in refused:
            if value is not None and not (isinstance(value, tuple) and all(part is None for part in value)):
                raise ConfigError(f"{where} is not supported; {refused[name]}")
        elif name in settings:
            raise ConfigError(f"{where}: it is a setting; write args={kind.config_type.__name__}({name}=…)")
        elif name not in TAKEN:
            near = difflib.get_close_matches(name, [*TAKEN, *refused], n=1)
            raise ConfigError(f"{where}: there is no such argument" + (f"; did you mean {near[0]}?" if near else ""))
