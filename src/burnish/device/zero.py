"""Optimizer state, or that and gradients, spread over ranks: DeepSpeed's ZeRO 1 and 2.

Every rank holds the whole model; of the optimizer, and under ZeRO-2 of the gradients, each holds a slice. DeepSpeed's
engine is told where a step ends, so that micro-batches are ours; learning rates, clipping and precision are ours too.
It divides gradients by the number of ranks, as a data-parallel wrapper does.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from burnish.errors import ConfigError

LARGEST_BUCKET = 500_000_000
"""Elements that DeepSpeed reduces or gathers at a time where nothing says it."""
_EVEN = 2
"""DeepSpeed wants buckets to be multiples of it."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_BEFORE_THE_FIRST = -1
"""DeepSpeed's count of a step's micro-batches, before there is one."""


def check_deepspeed_is_installed() -> None:
    """Raise ConfigError where DeepSpeed is not there."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            '--deepspeed: the package is not installed. pip install "burnish[deepspeed]", or take --parallel fsdp, '
            "which needs nothing more."
        )


class ZeroOptimizer:
    """An AdamW over whole parameters, as the rest sees it, whose state lies in slices on all ranks."""

    def __init__(self, engine: Any, adamw: torch.optim.Optimizer, parameters: list[list[nn.Parameter]]) -> None:
        self._engine = engine
        self.optimizer = adamw
        """torch's own, over this rank's slice of each group: what a schedule moves the learning rates of."""
        self._parameters = parameters

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups with their values and whole parameters."""
        groups = zip(self.optimizer.param_groups, self._parameters, strict=True)
        return [{**group, "params": parameters} for group, parameters in groups]

    @property
    def state(self) -> Mapping[Tensor, dict[str, Tensor]]:
        """Whole state by parameter, on rank 0; all ranks ask for the same parameters in the same order."""
        return _GatheredState(self)

    def step(self) -> None:
        """Clip, let each rank move its slice, and give all ranks the weights."""
        self._engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, also those that were summed into slices and not used."""
        zero = self._engine.optimizer
        zero.zero_grad(set_to_none=set_to_none)
        for summed in (zero.averaged_gradients, zero.all_grad_tensors):
            for group in summed:
                summed[group] = None
        zero.micro_step_id = _BEFORE_THE_FIRST

    def take_weights(self) -> None:
        """Learn of weights that were put into the model from elsewhere."""
        self._engine.optimizer.refresh_fp32_params()

    def state_dict(self) -> dict[str, Any]:
        """The groups as torch's optimizers describe them, without state, for `load_state_dict`."""
        numbers = iter(range(sum(map(len, self._parameters))))
        groups = [{**group, "params": [next(numbers) for _ in group["params"]]} for group in self.param_groups]
        return {"param_groups": groups, "state": {}}

    def load_state_dict(self, loaded: Mapping[str, Any]) -> None:
        """Take this rank's slices of whole states; the argument has the form of `state_dict`."""
        whole = zip(loaded["param_groups"], self._parameters, strict=True)
        for group, (values, parameters) in zip(self.optimizer.param_groups, whole, strict=True):
            group.update({name: values[name] for name in ("lr", "initial_lr") if name in values})
            states = [loaded["state"].get(number) for number in values["params"]]
            if any(states):
                self._load_group(group["params"][0], parameters, states)

    def whole_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """One parameter's state from the slices of all ranks, on the host of rank 0; nothing elsewhere."""
        place = next(place for place, group in enumerate(self._parameters) if any(parameter is one for one in group))
        own = self.optimizer.state.get(self.optimizer.param_groups[place]["params"][0])
        if not own:
            return {}
        state = {"step": own["step"].to("cpu", copy=True)}  # of its own: a file holds shared memory once
        for key in _MOMENTS:
            moment = torch.zeros(parameter.numel(), dtype=own[key].dtype, device=own[key].device)
            for part, slice_ in _own_part(parameter):
                moment[part] = own[key][slice_]
            dist.all_reduce(moment)
            state[key] = moment.view_as(parameter).cpu()
        return {} if self._engine.global_rank else state

    def _load_group(
        self, flat: Tensor, parameters: Iterable[nn.Parameter], states: Iterable[dict[str, Tensor] | None]
    ) -> None:
        own = self.optimizer.state[flat]
        for key in _MOMENTS:
            own.setdefault(key, torch.zeros_like(flat))
        for parameter, state in zip(parameters, states, strict=True):
            if state:
                own["step"] = state["step"].to(device=flat.device, dtype=torch.float32, copy=True)
                for part, slice_ in _own_part(parameter):
                    for key in _MOMENTS:
                        own[key][slice_] = state[key].flatten()[part].to(flat.device)


def _own_part(parameter: Tensor) -> list[tuple[slice, slice]]:
    """Which elements of a parameter lie in this rank's slice of its group, and where there; nothing where none does.

    DeepSpeed's own functions for it know the state of the first group alone, when AdamW makes it at the first step.
    """
    known: Any = parameter
    if known._hp_mapping is None:
        return []
    part, slice_ = known._hp_mapping.lp_fragment_address, known._hp_mapping.hp_fragment_address
    return [(slice(part.start, part.start + part.numel), slice(slice_.start, slice_.start + slice_.numel))]


class _GatheredState(Mapping[Tensor, dict[str, Tensor]]):
    """The state of a ZeroOptimizer, gathered parameter by parameter as it is asked for."""

    def __init__(self, optimizer: ZeroOptimizer) -> None:
        self._optimizer = optimizer

    def __getitem__(self, parameter: Tensor) -> dict[str, Tensor]:
        return self._optimizer.whole_state(parameter)

    def __iter__(self) -> Iterator[Tensor]:
        return (parameter for group in self._optimizer.param_groups for parameter in group["params"])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class ZeroStep:
    """What a step asks of accelerate's Accelerator, answered by DeepSpeed's engine."""

    scaler = None
    """There is none: fp16 is refused together with ZeRO."""

    def __init__(self, engine: Any, accelerator: Any) -> None:
        self._engine = engine
        self._accelerator = accelerator

    def autocast(self) -> AbstractContextManager[Any]:
        """The run's own mixed precision."""
        return self._accelerator.autocast()

    @contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        """Say that the step has more micro-batches than those of this block."""
        self._engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            self._engine.set_gradient_accumulation_boundary(True)

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients; the engine sees the loss first, for it prepares itself when that is made."""
        self._engine.backward(self._engine(loss), scale_wrt_gas=False)

    def clip_grad_norm_(self, parameters: Iterable[Tensor], limit: float) -> Tensor:
        """The global norm of the gradient before clipping; `ZeroOptimizer.step` clips, to the limit it was made with.

        Infinite where any gradient is not finite.
        """
        return self._engine.optimizer.scaled_global_norm()


class _LossThrough(nn.Module):
    """The module that DeepSpeed's engine is given: the model's parameters, and a forward pass of the loss alone.

    The model itself is called as without DeepSpeed, which changes nothing in a forward pass of ZeRO 1 and 2.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Tensor) -> Tensor:
        return loss


def build_zero(
    model: nn.Module,
    adamw: torch.optim.Optimizer,
    options: Mapping[str, Any],
    *,
    accelerator: Any,
    max_grad_norm: float,
) -> tuple[ZeroStep, ZeroOptimizer]:
    """Spread an optimizer over all ranks, whose process group exists.

    The device is the one that `build_accelerator` has told DeepSpeed of.

    Args:
        model: whole, on the device, with the same weights on all ranks.
        adamw: over its trainable parameters; afterwards over this rank's slices of them.
        options: DeepSpeed's configuration, without what is said here.
        accelerator: gives the mixed precision.
        max_grad_norm: limit of the gradient's global norm; 0 clips nothing.
    """
    import deepspeed  # pyright: ignore[reportMissingImports]

    # On the CPU it would compile a library of its own for sums, at every first start, and wait for ever for the lock of
    # one that was killed meanwhile. The process group is there already.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if accelerator.device.type == "npu":  # or its norms would be computed in float64, which an NPU has no kernels for
        deepspeed.accelerator.get_accelerator().is_fp64_supported = lambda: False
    warnings.filterwarnings("ignore", message="`torch.distributed.all_gather_into_tensor`", category=FutureWarning)
    parameters = [list(group["params"]) for group in adamw.param_groups]
    trained = sum(parameter.numel() for group in parameters for parameter in group)
    bucket = min(LARGEST_BUCKET, trained + trained % _EVEN)
    zero = {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket, **options["zero_optimization"]}
    config = {
        **options,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
    }
    engine: Any = deepspeed.initialize(
        model=_LossThrough(model), optimizer=adamw, config=config, dist_init_required=False
    )[0]
    engine.set_gradient_accumulation_boundary(True)
    return ZeroStep(engine, accelerator), ZeroOptimizer(engine, adamw, parameters)
