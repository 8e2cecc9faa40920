"""How a run meets accelerate: one object that knows the process's device, ranks and mixed precision."""

from __future__ import annotations

import os
import warnings
from typing import Any

from burnish.device.pick import Device
from burnish.device.precision import Precision
from burnish.errors import ConfigError

_OURS = {
    "ACCELERATE_USE_FSDP": "--parallel fsdp",
    "ACCELERATE_USE_DEEPSPEED": "--deepspeed ds.json",
    "ACCELERATE_USE_MEGATRON_LM": "--parallel fsdp",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--parallel fsdp",
}
"""What accelerate's own configuration may ask for by a variable, and how burnish is asked for it."""

DATA_PARALLEL: dict[str, Any] = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
"""How torch's DistributedDataParallel wraps a policy.

Buffers are constants, equal on all ranks: broadcasting them would put a collective into forward passes, where a rank
that runs out of memory must be able to leave. Gradients are views of what is sent to other ranks: in a step of one
micro-batch they are not held twice.
"""


def build_accelerator(device: Device, precision: Precision, **options: Any) -> Any:
    """Make the Accelerator for a device that was already chosen, so that the two never disagree.

    Args:
        device: from pick_device.
        precision: from choose_precision.
        options: further arguments of accelerate.Accelerator (trackers, project folder).

    Returns:
        accelerate.Accelerator.

    Raises:
        ConfigError: accelerate's own configuration asks for what burnish's settings say.
    """
    _check_configuration()
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(device.torch_device)
    os.environ["DS_ACCELERATOR"] = (
        device.kind
    )  # accelerate imports DeepSpeed where there is one, which guesses a device
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState

    # A second run in one process (a notebook, a test) may differ in device or precision from the first.
    AcceleratorState._reset_state(reset_partial_state=PartialState._shared_state.get("num_processes", 1) == 1)
    ddp = DistributedDataParallelKwargs(**DATA_PARALLEL)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    handlers = [*options.pop("kwargs_handlers", ()), ddp]
    return Accelerator(
        mixed_precision=precision.accelerate_name,
        cpu=not device.is_accelerator,
        kwargs_handlers=handlers,
        **options,
    )


def _check_configuration() -> None:
    """Refuse what `accelerate launch` and its configuration file would set up behind the back of burnish's settings."""
    for variable, ours in _OURS.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise ConfigError(
                f"accelerate's configuration spreads the model by itself ({variable}): take that out of it, and say "
                f"{ours} behind the method's name."
            )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise ConfigError(
            "accelerate's configuration compiles the model (ACCELERATE_DYNAMO_BACKEND): give accelerate "
            "--dynamo_backend no."
        )
