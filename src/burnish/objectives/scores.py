"""What paired objectives see of a pair: log-probabilities under policy and reference, token counts, row columns.

`logps` are sums over the counted tokens of a completion, in nats; `token_logps` are per token. Every tensor is float32
(float64 in tests) and on one device; nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from burnish.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PairScores:
    """Scores of the chosen and rejected completions of some pairs; each tensor (pairs,)."""

    chosen_logps: Tensor
    """log π(chosen | prompt), nats; discounted where `ld_alpha` is in use."""
    rejected_logps: Tensor
    """log π(rejected | prompt), nats; discounted likewise."""
    ref_chosen_logps: Tensor | None
    """log π_ref(chosen | prompt), nats; None where no reference is loaded."""
    ref_rejected_logps: Tensor | None
    """log π_ref(rejected | prompt), nats."""
    chosen_num_tokens: Tensor
    """Counted tokens of the chosen completion, ≥ 1."""
    rejected_num_tokens: Tensor
    """Counted tokens of the rejected completion, ≥ 1."""
    weight: Tensor
    """Row weights, ≥ 0: multiply a pair's numerator and no denominator."""
    margin: Tensor | None = None
    """How much greater the chosen reward should be, nats; None where the rows have no margin."""
    label_smoothing: Tensor | None = None
    """Probability that the row's labels are flipped, in [0, 0.5); replaces the setting where the rows have it."""
    share: Tensor | None = None
    """1 / the pairs of the list that the pair is from: a list weighs as much as a pair of its own; None for 1."""
    pair_weight: Tensor | None = None
    """Weight of the pair by its likelihood (`use_weighting`), no gradient; None for none."""
    chosen_likelihood: Tensor | None = None
    """The chosen completion's log-probability without `ld_alpha`, nats; None where it is chosen_logps."""
    prompt_logps: Tensor | None = None
    """log π(prompt), nats, where a likelihood term counts the prompt too."""

    @classmethod
    def from_completions(
        cls,
        logps: Tensor,
        ref_logps: Tensor | None,
        num_tokens: Tensor,
        *,
        weight: Tensor | None = None,
        margin: Tensor | None = None,
        **row_columns: Tensor | None,
    ) -> PairScores:
        """Split completion-level tensors into pairs.

        Args:
            logps: (completions,) chosen, rejected, chosen, rejected, …
            ref_logps: (completions,) in the same order, or None without a reference; its gradient is cut off.
            num_tokens: (completions,) counted tokens.
            weight: (pairs,) row weights; None weighs each 1.
            margin: (pairs,) or None.
            **row_columns: (pairs,) tensors of the fields of the same names.
        """
        chosen_logps, rejected_logps = _split(logps)
        chosen_num_tokens, rejected_num_tokens = _split(num_tokens.to(logps.dtype))
        ref_chosen_logps, ref_rejected_logps = (None, None) if ref_logps is None else _split(ref_logps.detach())
        return cls(
            chosen_logps=chosen_logps,
            rejected_logps=rejected_logps,
            ref_chosen_logps=ref_chosen_logps,
            ref_rejected_logps=ref_rejected_logps,
            chosen_num_tokens=chosen_num_tokens,
            rejected_num_tokens=rejected_num_tokens,
            weight=chosen_logps.new_ones(chosen_logps.shape) if weight is None else weight,
            margin=margin,
            **row_columns,
        )

    def as_table(self) -> Tensor:
        """(pairs, 6) log-probabilities and token counts, no gradient: what objectives of a whole step need of it."""
        ref = (self.chosen_logps, self.rejected_logps)  # fills the columns where there is no reference
        if self.ref_chosen_logps is not None and self.ref_rejected_logps is not None:
            ref = (self.ref_chosen_logps, self.ref_rejected_logps)
        columns = (self.chosen_logps, self.rejected_logps, *ref, self.chosen_num_tokens, self.rejected_num_tokens)
        return torch.stack(columns, dim=1).detach()

    @classmethod
    def from_table(cls, table: Tensor, *, has_reference: bool) -> PairScores:
        """Read what `as_table` gave, of any number of pairs; every row weighs 1."""
        chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens = table.unbind(dim=1)
        return cls(
            chosen_logps=chosen,
            rejected_logps=rejected,
            ref_chosen_logps=ref_chosen if has_reference else None,
            ref_rejected_logps=ref_rejected if has_reference else None,
            chosen_num_tokens=chosen_tokens,
            rejected_num_tokens=rejected_tokens,
            weight=torch.ones_like(chosen),
        )

    @property
    def num_pairs(self) -> int:
        return self.chosen_logps.shape[0]

    @property
    def num_groups(self) -> Tensor:
        """Pairs of their own and lists that these pairs are from, scalar."""
        if self.share is not None:
            return self.share.sum()
        return self.chosen_logps.new_tensor(float(self.num_pairs))

    def total(self, values: Tensor) -> Tensor:
        """Sum of (pairs,) values in which each list weighs as much as a pair of its own, scalar."""
        return (values if self.share is None else values * self.share).sum()

    @property
    def has_reference(self) -> bool:
        return self.ref_chosen_logps is not None

    @property
    def chosen_logratio(self) -> Tensor:
        """(pairs,) log π(chosen) - log π_ref(chosen), nats."""
        return _logratio(self.chosen_logps, self.ref_chosen_logps)

    @property
    def rejected_logratio(self) -> Tensor:
        """(pairs,) log π(rejected) - log π_ref(rejected), nats."""
        return _logratio(self.rejected_logps, self.ref_rejected_logps)

    @property
    def chosen_average(self) -> Tensor:
        """(pairs,) log π(chosen) a counted token, nats."""
        return self.chosen_logps / self.chosen_num_tokens.clamp(min=1)

    @property
    def rejected_average(self) -> Tensor:
        """(pairs,) log π(rejected) a counted token, nats."""
        return self.rejected_logps / self.rejected_num_tokens.clamp(min=1)

    @property
    def chosen_log_likelihood(self) -> Tensor:
        """(pairs,) log π(chosen), never discounted, nats: what likelihood terms maximise."""
        return self.chosen_logps if self.chosen_likelihood is None else self.chosen_likelihood


def _split(values: Tensor) -> tuple[Tensor, Tensor]:
    """(completions,) → chosen and rejected, each (pairs,)."""
    pairs = values.view(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _logratio(logps: Tensor, ref_logps: Tensor | None) -> Tensor:
    if ref_logps is None:
        raise ConfigError("this objective compares the policy with a reference, and no reference was scored")
    return logps - ref_logps
