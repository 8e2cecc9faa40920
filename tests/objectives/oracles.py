"""The objectives again, in NumPy float64 with plain loops, one pair or list at a time, from the papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Pair:
    """One pair as plain numbers."""

    chosen_logp: float
    rejected_logp: float
    ref_chosen_logp: float
    ref_rejected_logp: float
    chosen_tokens: int
    rejected_tokens: int
    margin: float = 0.0

    @property
    def lw(self) -> float:
        return self.chosen_logp - self.ref_chosen_logp

    @property
    def ll(self) -> float:
        return self.rejected_logp - self.ref_rejected_logp


def sigma(x: float) -> float:
    return math.exp(log_sigma(x))


def log_sigma(x: float) -> float:
    return -float(np.logaddexp(0.0, -x))


def divergence_score(ratio: float, s: dict[str, Any]) -> float:
    kind = s.get("f_divergence_type", "reverse_kl")
    if kind == "reverse_kl":
        return ratio
    if kind == "forward_kl":
        return 1 - math.exp(min(-ratio, 80))
    if kind == "js_divergence":
        return math.log(2) + log_sigma(ratio)
    a = s.get("f_alpha_divergence_coef", 0.5)
    return (math.exp(min((a - 1) * ratio, 80)) - 1) / (a - 1)


def difference(p: Pair, s: dict[str, Any]) -> float:
    return divergence_score(p.lw, s) - divergence_score(p.ll, s)


def sigmoid(p: Pair, s: dict[str, Any]) -> float:
    z, e = s["beta"] * difference(p, s) - p.margin, s.get("label_smoothing", 0.0)
    return -(1 - e) * log_sigma(z) - e * log_sigma(-z)


def hinge(p: Pair, s: dict[str, Any]) -> float:
    return max(0.0, 1 - s["beta"] * difference(p, s))


def ipo(p: Pair, s: dict[str, Any]) -> float:
    gap = divergence_score(p.lw, s) / p.chosen_tokens - divergence_score(p.ll, s) / p.rejected_tokens
    return (gap - 1 / (2 * s["beta"])) ** 2


def exo_pair(p: Pair, s: dict[str, Any]) -> float:
    z, e = s["beta"] * difference(p, s), s["label_smoothing"]
    forward = sigma(z) * (log_sigma(z) - math.log(1 - e))
    return forward + sigma(-z) * (log_sigma(-z) - math.log(e))


def nca_pair(p: Pair, s: dict[str, Any]) -> float:
    rw, rl = s["beta"] * p.lw, s["beta"] * p.ll
    return -log_sigma(rw) - 0.5 * log_sigma(-rw) - 0.5 * log_sigma(-rl)


def robust(p: Pair, s: dict[str, Any]) -> float:
    z, e = s["beta"] * difference(p, s) - p.margin, s.get("label_smoothing", 0.0)
    return (-(1 - e) * log_sigma(z) + e * log_sigma(-z)) / (1 - 2 * e)


def bco_pair(p: Pair, s: dict[str, Any]) -> float:
    delta = s.get("reward_baseline", 0.0)
    return -log_sigma(s["beta"] * p.lw - delta) - log_sigma(-(s["beta"] * p.ll - delta))


def sppo_hard(p: Pair, s: dict[str, Any]) -> float:
    return (p.lw - 1 / (2 * s["beta"])) ** 2 + (p.ll + 1 / (2 * s["beta"])) ** 2


def apo_zero(p: Pair, s: dict[str, Any]) -> float:
    return 1 - sigma(s["beta"] * p.lw) + sigma(s["beta"] * p.ll)


def apo_down(p: Pair, s: dict[str, Any]) -> float:
    return sigma(s["beta"] * p.lw) + 1 - sigma(s["beta"] * (p.lw - p.ll))


def discopop(p: Pair, s: dict[str, Any]) -> float:
    u = s["beta"] * difference(p, s)
    mixture = sigma(u / s.get("discopop_tau", 0.05))
    return -(1 - mixture) * log_sigma(u) + mixture * math.exp(-u)


def sft(p: Pair, s: dict[str, Any]) -> float:
    return -p.chosen_logp


def sigmoid_norm(p: Pair, s: dict[str, Any]) -> float:
    gap = divergence_score(p.lw, s) / p.chosen_tokens - divergence_score(p.ll, s) / p.rejected_tokens
    return -log_sigma(s["beta"] * gap - p.margin)


def odpo(p: Pair, s: dict[str, Any]) -> float:
    return -log_sigma(s["beta"] * (p.lw - p.ll) - p.margin)


def dpop(p: Pair, s: dict[str, Any]) -> float:
    penalty = s.get("dpop_lambda", 50.0) * max(0.0, p.ref_chosen_logp - p.chosen_logp)
    return -log_sigma(s["beta"] * (p.lw - p.ll - penalty) - p.margin)


def cal(p: Pair, s: dict[str, Any]) -> float:
    return -log_sigma(p.lw - p.ll) + sppo_hard(p, s)


def simpo(p: Pair, s: dict[str, Any]) -> float:
    gap = p.chosen_logp / p.chosen_tokens - p.rejected_logp / p.rejected_tokens
    z, e = s["beta"] * gap - s.get("simpo_gamma", 0.5) - p.margin, s.get("label_smoothing", 0.0)
    return -(1 - e) * log_sigma(z) - e * log_sigma(-z)


def cpo(p: Pair, s: dict[str, Any]) -> float:
    z, e = s["beta"] * (p.chosen_logp - p.rejected_logp) - p.margin, s.get("label_smoothing", 0.0)
    return -(1 - e) * log_sigma(z) - e * log_sigma(-z)


def orpo(p: Pair, s: dict[str, Any]) -> float:
    likely = [math.exp(p.chosen_logp / p.chosen_tokens), math.exp(p.rejected_logp / p.rejected_tokens)]
    odds = [q / (1 - q) for q in likely]
    return -s["beta"] * log_sigma(math.log(odds[0] / odds[1]))


def alphapo(p: Pair, s: dict[str, Any]) -> float:
    alpha = s.get("alphapo_alpha", 0.25)
    rewards = []
    for logp, tokens in ((p.chosen_logp, p.chosen_tokens), (p.rejected_logp, p.rejected_tokens)):
        rewards.append(s["beta"] * (1 - math.exp(-alpha * logp / tokens)) / alpha)
    return -log_sigma(rewards[0] - rewards[1] - s.get("simpo_gamma", 0.5))


def _aot(left: list[float], right: list[float], s: dict[str, Any]) -> list[float]:
    losses = []
    for high, low in zip(sorted(left), sorted(right), strict=True):
        z, e = s["beta"] * (high - low), s.get("label_smoothing", 0.0)
        losses.append(-(1 - e) * log_sigma(z) - e * log_sigma(-z))
    return losses


def aot(pairs: list[Pair], s: dict[str, Any]) -> list[float]:
    policy = [p.chosen_logp - p.rejected_logp for p in pairs]
    return _aot(policy, [p.ref_chosen_logp - p.ref_rejected_logp for p in pairs], s)


def aot_unpaired(pairs: list[Pair], s: dict[str, Any]) -> list[float]:
    return _aot([p.lw for p in pairs], [p.ll for p in pairs], s)


PAIR_ORACLES: dict[str, Callable[[Pair, dict[str, Any]], float]] = {
    function.__name__: function
    for function in (
        sigmoid,
        hinge,
        ipo,
        exo_pair,
        nca_pair,
        robust,
        bco_pair,
        sppo_hard,
        apo_zero,
        apo_down,
        discopop,
        sft,
        sigmoid_norm,
        odpo,
        dpop,
        cal,
        simpo,
        cpo,
        orpo,
        alphapo,
    )
}
STEP_ORACLES = {"aot": aot, "aot_unpaired": aot_unpaired}


def pair_losses(name: str, pairs: list[Pair], settings: dict[str, Any]) -> np.ndarray:
    """Each pair's loss, float64."""
    if name in STEP_ORACLES:
        return np.array(STEP_ORACLES[name](pairs, settings))
    return np.array([PAIR_ORACLES[name](pair, settings) for pair in pairs])


def plackett_luce(ratios: list[float], beta: float) -> float:
    """`ratios` best first."""
    loss = 0.0
    for i in range(len(ratios)):
        rest = sum(math.exp(beta * ratio) for ratio in ratios[i:])
        loss -= math.log(math.exp(beta * ratios[i]) / rest)
    return loss


def softmax(ratios: list[float], beta: float) -> float:
    """The first is chosen."""
    against = sum(math.exp(beta * (ratio - ratios[0])) for ratio in ratios[1:])
    return -log_sigma(-math.log(against))


def kto(ratio: float, desirable: bool, s: dict[str, Any]) -> float:
    if desirable:
        return s["desirable_weight"] * (1 - sigma(s["beta"] * ratio - s["kl_reward"]))
    return s["undesirable_weight"] * (1 - sigma(s["kl_reward"] - s["beta"] * ratio))


def apo_zero_unpaired(ratio: float, desirable: bool, s: dict[str, Any]) -> float:
    if desirable:
        return s["desirable_weight"] * (1 - sigma(s["beta"] * ratio))
    return s["undesirable_weight"] * sigma(s["beta"] * ratio)


def bco(ratio: float, desirable: bool, s: dict[str, Any]) -> float:
    shifted = s["beta"] * ratio - s["reward_baseline"]
    weight = s["desirable_weight"] if desirable else s["undesirable_weight"]
    return -weight * log_sigma(shifted if desirable else -shifted)


UNPAIRED_ORACLES = {"kto": kto, "apo_zero_unpaired": apo_zero_unpaired, "bco": bco}
