"""Computes small things on a device and on the CPU and prints how far they differ; run as a script: KIND.

Each is what training does: a product, attention under explicit masks (a tree row's and a window's), bfloat16, and the
optimizer over steps whose gradients were set to None between, which is where a vendor's fused AdamW goes wrong. On an
NPU also each fused operator in a tiny model.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

MARK = "burnish-probe "
FLOAT32_LIMIT = 2e-3
"""Room for the 10-bit products that some devices use for float32 (TF32, HF32)."""
BFLOAT16_LIMIT = 2e-2


def say(stage: str, **facts: Any) -> None:
    """Print one stage's facts."""
    print(MARK + json.dumps({"stage": stage, **facts}), flush=True)


def difference(found: Any, reference: Any) -> float:
    """Relative difference of two tensors in the Euclidean norm, in float64 on the CPU."""
    reference = reference.detach().cpu().double()
    distance = (found.detach().cpu().double() - reference).norm() / reference.norm()
    return float(distance)


def leaf(tensor: Any, where: Any) -> Any:
    """A copy on a device that collects gradients of its own: on the CPU, `to` alone would hand out the same tensor."""
    return tensor.detach().clone().to(where).requires_grad_()


def matmul(torch: Any, device: Any) -> tuple[float, float]:
    """A product and the gradient of its sum of squares."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(96, 96, generator=generator) for _ in range(2))

    def run(where: Any) -> tuple[Any, Any]:
        weight = leaf(right, where)
        product = left.to(where) @ weight
        product.square().sum().backward()
        return product, weight.grad

    pairs = zip(run(device), run("cpu"), strict=True)
    return max(difference(found, reference) for found, reference in pairs), FLOAT32_LIMIT


def attention(torch: Any, device: Any) -> tuple[float, float]:
    """Scaled dot-product attention under boolean masks: causal, a window of 4, and a tree of two completions."""
    length = 24
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(2, 4, length, 32, generator=generator) for _ in range(3)]
    rows, columns = torch.arange(length)[:, None], torch.arange(length)[None, :]
    causal = columns <= rows
    tree = causal & ~((rows >= 16) & (columns >= 8) & (columns < 16))
    worst = 0.0
    for mask in (causal, causal & (rows - columns < 4), tree):
        results = []
        for where in (device, "cpu"):
            query, key, value = (leaf(tensor, where) for tensor in tensors)
            full = mask[None, None].expand(2, 1, length, length).to(where)
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=full)
            out.square().sum().backward()
            results.append((out, query.grad, key.grad, value.grad))
        worst = max([worst, *(difference(found, reference) for found, reference in zip(*results, strict=True))])
    return worst, FLOAT32_LIMIT


def bfloat16(torch: Any, device: Any) -> tuple[float, float]:
    """A product in bfloat16 under autocast against the same product in float32 on the CPU."""
    generator = torch.Generator().manual_seed(2)
    left, right = (torch.randn(96, 96, generator=generator) for _ in range(2))
    with torch.autocast(device_type=torch.device(device).type, dtype=torch.bfloat16):
        found = left.to(device) @ right.to(device)
    if found.dtype is not torch.bfloat16:
        raise RuntimeError(f"autocast gave {found.dtype}")
    return difference(found, left @ right), BFLOAT16_LIMIT


def optimizer(torch: Any, device: Any) -> tuple[float, float]:
    """Four steps of the fused AdamW, gradients set to None between them; the movement of the weights is compared."""
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(64, 32, generator=generator)
    inputs = [torch.randn(16, 64, generator=generator) for _ in range(4)]

    def run(where: Any, *, fused: bool) -> Any:
        weight = torch.nn.Parameter(start.clone().to(where))
        adamw = torch.optim.AdamW([weight], lr=1e-2, fused=fused, foreach=False)
        for rows in inputs:
            adamw.zero_grad(set_to_none=True)
            (rows.to(where) @ weight).tanh().square().sum().backward()
            adamw.step()
        return weight.detach().cpu() - start

    return difference(run(device, fused=True), run("cpu", fused=False)), FLOAT32_LIMIT


TRIALS: dict[str, Callable[[Any, Any], tuple[float, float]]] = {
    "matmul": matmul,
    "attention": attention,
    "bf16": bfloat16,
    "optimizer": optimizer,
}


def trials_of(kind: str) -> dict[str, Callable[[Any, Any], tuple[float, float]]]:
    """What is tried on a kind of device: on an NPU, each fused operator that training would use as well."""
    if kind != "npu":
        return TRIALS
    # Not at the top: it imports torch, and burnish's own modules.
    return TRIALS | importlib.import_module("burnish.device.doctor.probes.fused").fused_trials()


def main(kind: str) -> None:
    """Try everything on the first device of a kind."""
    torch = importlib.import_module("torch")
    if kind == "npu" and importlib.util.find_spec("torch_npu") is not None:
        importlib.import_module("torch_npu")
        torch.npu.set_compile_mode(jit_compile=False)
    device = "cpu" if kind == "cpu" else f"{kind}:0"
    lacks_bf16 = kind != "cpu" and not getattr(torch, kind).is_bf16_supported()
    for name, trial in trials_of(kind).items():
        if lacks_bf16 and (name == "bf16" or name.startswith("fused_")):  # what training leaves out there
            say(name, absent=True)
            continue
        try:
            measured, limit = trial(torch, device)
            say(name, measured=measured, limit=limit)
        except Exception as error:
            say(name, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
