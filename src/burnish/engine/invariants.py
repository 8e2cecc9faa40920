"""What must hold at step 0 of a fresh run: policy and reference are one, so every reward is 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from burnish.engine.method import Method, MicroBatchLoss, Scored
from burnish.errors import NumericsError
from burnish.models.cached_reference import CachedReference

LOGP_TOLERANCE_NATS = 1e-3
"""Most that a completion's log-probability may differ; the same kernels on the same rows give exactly 0."""
LOSS_TOLERANCE = 1e-4
"""Most that the loss may differ from its closed form, relative."""


@dataclass(frozen=True, slots=True)
class StartInvariants:
    """Checks the first micro-batch of a run whose reference is the policy's own start; no dropout is active."""

    method: Method

    @torch.no_grad()
    def __call__(self, scored: Scored, outcome: MicroBatchLoss, denominators: Mapping[str, float]) -> None:
        """Compare rewards with 0 and the loss with its closed form.

        Raises:
            NumericsError: exit code 4, with what differs and why that may be.
        """
        if scored.reference is None:
            return
        apart = (scored.scores.logps - scored.reference.logps).abs().max().item()
        if not apart <= LOGP_TOLERANCE_NATS:
            raise NumericsError(
                f"before the first step, policy and reference differ by {apart:.3g} nats, and should not at all.\n"
                "The model's forward is not reproducible here: check its dropout and custom code, or try "
                "--attn_implementation eager."
            )
        if self.method.has_closed_start:
            expected = self._closed_form(scored, denominators)
            loss = outcome.loss.item()
            if not abs(loss - expected) <= LOSS_TOLERANCE * max(1.0, abs(expected)):
                raise NumericsError(
                    f"before the first step the loss is {loss:.6g}, and its closed form is {expected:.6g}.\n"
                    "The objective does not compute what it says; please report the settings in run.yaml."
                )

    def _closed_form(self, scored: Scored, denominators: Mapping[str, float]) -> float:
        """The loss of a policy that has not moved: the same tokens, every log-ratio 0."""
        scores = scored.scores
        unmoved = replace(
            scores, token_logps=torch.zeros_like(scores.token_logps), logps=torch.zeros_like(scores.logps)
        )
        return self.method.loss(Scored(scored.batch, unmoved, unmoved), denominators).loss.item()


def start_check(reference: CachedReference | None, model: nn.Module, method: Method) -> StartInvariants | None:
    """The check of a fresh run's first micro-batch, where policy and reference must agree there."""
    agrees = reference is not None and reference.starts_as_policy and not has_active_dropout(model)
    return StartInvariants(method) if agrees else None


def has_active_dropout(model: nn.Module) -> bool:
    """Whether anything would be dropped in training: a dropout layer, or attention, which reads a plain attribute."""
    return any(_dropout_of(module) > 0 for module in model.modules())


def _dropout_of(module: nn.Module) -> float:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    shares = (value for name, value in vars(module).items() if "dropout" in name and isinstance(value, float))
    return max(shares, default=0.0)
