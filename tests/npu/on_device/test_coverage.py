"""No operator of a training step is without a kernel in the vendor's wheel: nothing falls back to the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from builders import build_groups, build_model
from burnish.batching.layout import lay_out
from burnish.device.optimizer import build_adamw
from burnish.scoring.scorer import Scorer

COMPOSED = ("CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
ONLY_ON_CPU = ("_scaled_dot_product_flash_attention_for_cpu", "mkldnn::_linear_pointwise")


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators: set[Any] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.add(func)
        self.dtypes |= {v.dtype for v in tree_leaves(result) if isinstance(v, torch.Tensor)}
        return result


def _record_step(precision: torch.dtype, **options: Any) -> _Recorder:
    """A step of a small model on the CPU: tree rows, head, backward, clipping, AdamW."""
    model = build_model("qwen2")
    optimizer = build_adamw([{"params": list(model.parameters())}], kind="npu", precision="bf16", lr=1e-3)
    with _Recorder() as recorder:
        for shared in (True, False):
            batch = lay_out(build_groups(0), shared=shared, pad_id=0)
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                scores = Scorer(model, **options)(batch)
            torch.nn.functional.logsigmoid(scores.logps).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
        optimizer.step()
    return recorder


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_every_operator_of_a_step_has_a_kernel_or_is_composed(precision: torch.dtype) -> None:
    recorder = _record_step(precision)
    assert len(recorder.operators) > 40
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    missing = [
        operator.name()
        for operator in recorder.operators
        if not any(has_kernel(operator.name(), key) for key in ("PrivateUse1", *COMPOSED))
        # the CPU's own attention and product, which stand for what is another operator on the device
        and not any(name in operator.name() for name in ONLY_ON_CPU)
    ]
    assert missing == []
    assert has_kernel("aten::scaled_dot_product_attention", "AutogradPrivateUse1")


def test_an_operator_without_a_kernel_would_be_found() -> None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert not any(has_kernel("aten::linalg_householder_product", key) for key in ("PrivateUse1", *COMPOSED))


def test_no_step_makes_float64() -> None:
    assert torch.float64 not in _record_step(torch.bfloat16).dtypes
