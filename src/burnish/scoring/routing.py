"""How the routers of a mixture-of-experts model spread tokens over experts: sums that add up over micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """Sums over the tokens and layers of a micro-batch; padding left out, a shared prompt once a completion."""

    probabilities: Tensor
    """(experts,) router probabilities; with gradient."""
    assignments: Tensor
    """(experts,) how often each expert was among the chosen; no gradient."""
    num_rows: Tensor
    """Scalar: tokens times layers."""

    def as_table(self) -> Tensor:
        """(2 * experts + 1,) everything, no gradient: to be added up over micro-batches and ranks."""
        parts = (self.assignments, self.probabilities.detach(), self.num_rows[None])
        return torch.cat([part.float() for part in parts])


def sum_routing(router_logits: Sequence[Tensor], copies: Tensor, *, experts_per_token: int) -> Routing:
    """Add up what the routers said.

    Args:
        router_logits: of each layer, (rows * length, experts).
        copies: (rows, length) how often each token counts; 0 for padding.
        experts_per_token: how many experts a token goes to.
    """
    weights = copies.reshape(-1, 1)
    num_experts = router_logits[0].shape[-1]
    probabilities, assignments = weights.new_zeros(num_experts), weights.new_zeros(num_experts)
    for logits in router_logits:
        shares = torch.softmax(logits.reshape(-1, num_experts).float(), dim=-1)
        chosen = torch.topk(shares.detach(), experts_per_token, dim=-1).indices
        # A sum of ones and zeros: a scattered addition is not reproducible on every device.
        assignments = assignments + (nn.functional.one_hot(chosen, num_experts).sum(dim=1) * weights).sum(dim=0)
        probabilities = probabilities + (shares * weights).sum(dim=0)
    return Routing(probabilities, assignments, weights.sum() * len(router_logits))


def own_router_coefficient(model: nn.Module) -> float | None:
    """The weight of the balancing loss in a model's own configuration, 0 where it names none; None without routers.

    Args:
        model: a causal language model of transformers, adapters unwrapped.
    """
    config: Any = model.config
    text = config.get_text_config()
    if not hasattr(text, "output_router_logits"):
        return None
    return float(getattr(text, "router_aux_loss_coef", 0.0) or 0.0)


def experts_per_token(model: nn.Module) -> int:
    """How many experts each token goes to."""
    config: Any = model.config
    return int(getattr(model, "num_experts_per_tok", None) or config.get_text_config().num_experts_per_tok)
