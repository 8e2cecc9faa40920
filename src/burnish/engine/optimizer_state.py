"""The optimizer's state as tensors by parameter name, without pickle, and back again bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from burnish.errors import IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

_NO_STATE = "no_state"
_GROUP_VALUES = ("lr", "initial_lr")


def optimizer_tensors(optimizer: Any, named_parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All state of an optimizer as `<parameter>.<key>`, e.g. `h.0.weight.exp_avg`, and `group.<i>.lr` of each group.

    A parameter without state yet has an empty `<parameter>.no_state`, so that a state which is lost later is noticed.

    Args:
        optimizer: a torch optimizer (or accelerate's wrapper) whose state values are tensors, such as AdamW.
        named_parameters: every parameter of the optimizer by name; those of others are passed over.

    Raises:
        ValueError: a parameter has no name.
        TypeError: a state value is no tensor.
    """
    import torch

    from burnish.device.sharding import local_part

    names = _names_by_identity(named_parameters)
    tensors: dict[str, Tensor] = {}
    for index, group in enumerate(optimizer.param_groups):
        for key in _GROUP_VALUES:
            if key in group:
                tensors[f"group.{index}.{key}"] = torch.tensor([float(group[key])], dtype=torch.float64)
        for parameter in group["params"]:
            name = _name_of(parameter, names)
            state = optimizer.state.get(parameter) or {_NO_STATE: torch.empty(0)}
            for key, value in state.items():
                if not isinstance(value, torch.Tensor):
                    raise TypeError(f"the optimizer's {key} of {name} is {type(value).__name__}, no tensor")
                tensors[f"{name}.{key}"] = local_part(value)
    return tensors


def load_optimizer_tensors(optimizer: Any, named_parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Give an optimizer the state that `optimizer_tensors` took from one over the same parameters.

    Args:
        optimizer: freshly made, over the same parameters in the same groups.
        named_parameters: as for `optimizer_tensors`.
        saved: what it returned; the optimizer gets copies.

    Raises:
        IntegrityError: a state is missing or left over, or a shape or dtype does not fit; nothing was loaded.
        ValueError: a parameter has no name.
    """
    names = _names_by_identity(named_parameters)
    new = optimizer.state_dict()
    remaining = dict(saved)
    state: dict[int, dict[str, Tensor]] = {}
    for index, (group, live) in enumerate(zip(new["param_groups"], optimizer.param_groups, strict=True)):
        for key in _GROUP_VALUES:
            if key in live:
                group[key] = float(_take(remaining, f"group.{index}.{key}"))
        for number, parameter in zip(group["params"], live["params"], strict=True):
            found = _take_state(remaining, _name_of(parameter, names), parameter)
            if found:
                state[number] = found
    if remaining:
        raise IntegrityError(
            f"the checkpoint's optimizer has {len(remaining)} tensors that this run has not ({_some(remaining)})"
        )
    new["state"] = state
    optimizer.load_state_dict(new)


def _take_state(remaining: dict[str, Tensor], name: str, parameter: Tensor) -> dict[str, Tensor]:
    if remaining.pop(f"{name}.{_NO_STATE}", None) is not None:
        return {}
    from burnish.device.sharding import spread_like

    found = {"step": _take(remaining, f"{name}.step").clone()}
    moments = ["exp_avg", "exp_avg_sq"]
    if f"{name}.max_exp_avg_sq" in remaining:
        moments.append("max_exp_avg_sq")
    for key in moments:
        value = _take(remaining, f"{name}.{key}")
        if value.shape != parameter.shape or value.dtype != parameter.dtype:
            raise IntegrityError(
                f"the checkpoint's optimizer does not fit this run: {name}.{key} is {value.dtype} {list(value.shape)}, "
                f"the parameter {parameter.dtype} {list(parameter.shape)}"
            )
        found[key] = spread_like(value, parameter)
    return found


def _take(remaining: dict[str, Tensor], key: str) -> Tensor:
    value = remaining.pop(key, None)
    if value is None:
        raise IntegrityError(f"the checkpoint's optimizer lacks {key}")
    if key.endswith((".step", *_GROUP_VALUES)) and value.numel() != 1:
        raise IntegrityError(f"the checkpoint's optimizer holds {list(value.shape)} values as {key} instead of one")
    return value


def _names_by_identity(named_parameters: Mapping[str, Tensor]) -> dict[int, str]:
    return {id(parameter): name for name, parameter in named_parameters.items()}


def _name_of(parameter: Tensor, names: Mapping[int, str]) -> str:
    if id(parameter) not in names:
        raise ValueError(f"a parameter of the optimizer, of shape {list(parameter.shape)}, has no name")
    return names[id(parameter)]


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
