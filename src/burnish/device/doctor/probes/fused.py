"""Trials of the vendor's fused operators: a tiny model with one of them on, against the same model on the CPU.

Not a script: small_run.py imports it on an NPU, where training would use the operators. What is compared is what
training computes: the model takes the operator by `fuse_operators`, rows are trees under a mask, in float32 and in
bfloat16, logits and the gradient of every weight. The cross-entropy, which the head calls by itself, is
tried on a block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from burnish.device.fused.cross_entropy import log_probabilities, logits_gradient
from burnish.device.fused.fuse import fuse_operators
from burnish.device.fused.table import OPERATORS
from burnish.device.pick import Device

FLOAT32_LIMIT = 5e-3
"""Of a whole layer forth and back, with room for the 10-bit products that some devices use for float32."""
HALF_LIMIT = 5e-2
"""Of the same in bfloat16 or fp16 under autocast."""
Trial = Callable[[Any, Any], tuple[float, float]]


def fused_trials() -> dict[str, Trial]:
    """The trial of each operator, by the name of its line in the report."""
    trials = {f"fused_{operator}": _trial(operator) for operator in OPERATORS}
    return trials | {"fused_cross_entropy": _cross_entropy}


def _trial(operator: str) -> Trial:
    def trial(_: Any, device: Any) -> tuple[float, float]:
        """Relative difference and its limit, of that precision which comes closer to its own."""
        half = torch.bfloat16 if _has_bf16(device) else torch.float16
        measured = [(compare(operator, device, None), FLOAT32_LIMIT), (compare(operator, device, half), HALF_LIMIT)]
        return max(measured, key=lambda pair: pair[0] / pair[1] if pair[0] == pair[0] else float("inf"))

    return trial


def _cross_entropy(_: Any, device: Any) -> tuple[float, float]:
    """Log-probabilities of a block and their derivative by its logits, in the head's float32; and the limit."""
    generator = torch.Generator().manual_seed(6)
    logits, targets = torch.randn(48, 1000, generator=generator) * 4, torch.randint(0, 1000, (48,), generator=generator)
    upstream = torch.linspace(-1, 1, 48)
    leaf = logits.clone().requires_grad_()
    expected = torch.log_softmax(leaf, dim=1)
    of_targets = expected.gather(1, targets[:, None]).squeeze(1)
    of_targets.backward(upstream)
    found, every = log_probabilities(logits.to(device), targets.to(device))
    gradient = logits_gradient(upstream.to(device), every, targets.to(device))
    pairs = ((found, of_targets), (every, expected), (gradient, leaf.grad))
    return max(_difference(one, other) for one, other in pairs if other is not None), FLOAT32_LIMIT


def compare(operator: str, device: Any, autocast: torch.dtype | None) -> float:
    """Difference of logits and gradients from the CPU's float32, the greater of the two.

    Raises:
        RuntimeError: the model does not take the operator.
    """
    plain = _tiny_model()
    fused = copy.deepcopy(plain).to(device)
    used = fuse_operators(fused, Device("npu", torch.device(device), ""), [operator])
    if used != [operator]:
        raise RuntimeError(f"the model took {used or 'nothing'} for {operator}")
    found, expected = _logits_and_gradients(fused, device, autocast), _logits_and_gradients(plain, "cpu", None)
    return max(_difference(one, other) for one, other in zip(found, expected, strict=True))


def _tiny_model() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config: Any = Qwen2Config(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)  # ones would hide a norm that forgets its weight
    return model


def _logits_and_gradients(model: Any, where: Any, autocast: torch.dtype | None) -> tuple[Any, Any]:
    """One forward and backward pass over a tree row: a prompt of 8 tokens, completions of 8 and 8."""
    length, prompt, first = 24, 8, 16
    rows, columns = torch.arange(length)[:, None], torch.arange(length)[None, :]
    mask = (columns <= rows) & ~((rows >= first) & (columns >= prompt) & (columns < first))
    positions = torch.cat([torch.arange(first), torch.arange(prompt, first)])
    ids = torch.randint(0, 128, (1, length), generator=torch.Generator().manual_seed(5))
    kind = torch.device(where).type
    with torch.autocast(kind, autocast or torch.bfloat16, enabled=autocast is not None):
        logits = model(
            input_ids=ids.to(where),
            position_ids=positions[None].to(where),
            attention_mask=mask[None, None].to(where),
            use_cache=False,
        ).logits.float()
    logits.tanh().square().sum().backward()
    weights = list(model.parameters())
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    return logits, torch.cat([gradient.flatten().cpu() for gradient in gradients])


def _difference(found: torch.Tensor, reference: torch.Tensor) -> float:
    reference = reference.detach().cpu().double()
    return float((found.detach().cpu().double() - reference).norm() / reference.norm())


def _has_bf16(device: Any) -> bool:
    module = getattr(torch, torch.device(device).type, None)
    return bool(module is not None and module.is_bf16_supported())
