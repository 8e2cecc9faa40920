"""Trainers of methods that compare with a reference, which is the second argument as in TRL."""

from __future__ import annotations

from typing import Any

from torch import nn

from burnish.methods.trainer import Trainer


class ComparingTrainer(Trainer):
    """Trainers of methods that compare the policy with a reference."""

    compares = True

    def __init__(
        self,
        model: str | nn.Module | None = None,
        ref_model: str | nn.Module | None = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **others: Any,
    ) -> None:
        """Take what Trainer takes and, second as in TRL, the reference or its name; None is the policy's start."""
        places = (model, args, data_collator, train_dataset, eval_dataset, processing_class)
        super().__init__(*places, ref_model=ref_model, **others)
