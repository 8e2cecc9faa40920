"""TRL 1.16's loss, gradient norm and metrics of 24 configurations, from plain forward passes of a tiny model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from burnish.objectives.combine import Combination
from burnish.objectives.metrics import preference_metrics
from burnish.objectives.scores import PairScores
from burnish.objectives.tokens import aggregate_logps, discount_weights, likelihood_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen2"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())["cases"]


@dataclass
class Scored:
    """Counted tokens of the eight pairs under one model, in the order chosen, rejected, chosen, …"""

    parameters: list[Tensor]
    token_logps: Tensor
    log_sum_squares: Tensor
    mean_logits: Tensor
    completion_index: Tensor
    token_offset: Tensor
    num_tokens: Tensor

    @property
    def places(self) -> tuple[Tensor, Tensor]:
        return self.completion_index, self.token_offset

    @property
    def max_counted(self) -> int:
        return int(self.num_tokens.max())

    def sums(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        return aggregate_logps(
            values,
            *self.places,
            num_completions=len(self.num_tokens),
            max_counted=self.max_counted,
            token_weights=weights,
        )


def score(folder: Path) -> Scored:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pairs = json.loads((GOLDEN / "pairs.json").read_text())
    rows: dict[str, list[Tensor]] = {"logps": [], "squares": [], "logits": []}
    for pair in pairs:
        for side in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor(pair["prompt_ids"] + pair[side])
            start = len(pair["prompt_ids"])
            logits = model(input_ids=ids[None]).logits[0, start - 1 : -1]
            logps = logits.log_softmax(-1)
            rows["logps"].append(logps.gather(1, ids[start:, None])[:, 0])
            rows["squares"].append((2 * logps).logsumexp(-1))
            rows["logits"].append(logits.mean(-1))
    sizes = [len(logps) for logps in rows["logps"]]
    return Scored(
        parameters=list(model.parameters()),
        token_logps=torch.cat(rows["logps"]),
        log_sum_squares=torch.cat(rows["squares"]),
        mean_logits=torch.cat(rows["logits"]),
        completion_index=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        token_offset=torch.cat([torch.arange(size) for size in sizes]),
        num_tokens=torch.tensor(sizes, dtype=torch.float32),
    )


@pytest.fixture(scope="module")
def policy() -> Scored:
    return score(GOLDEN / "policy")


@pytest.fixture(scope="module")
def reference() -> Scored:
    return score(GOLDEN / "reference")


def pair_scores(policy: Scored, reference: Scored, config: dict[str, Any]) -> PairScores:
    weights = pair_weight = None
    if "ld_alpha" in config:
        weights = discount_weights(policy.num_tokens, *policy.places, ld_alpha=config["ld_alpha"])
    if config.get("use_weighting"):
        pair_weight = likelihood_weights(
            policy.token_logps,
            policy.log_sum_squares,
            *policy.places,
            policy.num_tokens,
            max_counted=policy.max_counted,
        )
    return PairScores.from_completions(
        policy.sums(policy.token_logps, weights),
        reference.sums(reference.token_logps, weights),
        policy.num_tokens,
        pair_weight=pair_weight,
        chosen_likelihood=policy.sums(policy.token_logps)[0::2],
    )


def case_name(case: dict[str, Any]) -> str:
    config = case["config"]
    return "+".join(config["loss_type"]) + "".join(f"-{key}={config[key]}" for key in config if key != "loss_type")


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_loss_gradient_norm_and_metrics_are_those_of_trl(case, policy, reference):
    config = case["config"]
    scores = pair_scores(policy, reference, config)
    combination = Combination(config["loss_type"], config.get("loss_weights"), config)
    denominators = {"pairs": 8.0, "chosen_tokens": float(scores.chosen_num_tokens.sum())}
    coupled = combination.couple(scores, denominators) if combination.needs_step_scores else None
    loss, _ = combination.total(scores, denominators, coupled=coupled)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)

    gradients = torch.autograd.grad(loss, policy.parameters, retain_graph=True)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert norm.item() == pytest.approx(case["grad_norm"], rel=1e-4)

    metrics = preference_metrics(scores, *combination.rewards(scores), policy.sums(policy.mean_logits))
    shared = metrics.keys() & case["metrics"].keys()
    assert len(shared) == 8
    for key in shared:
        total, count = metrics[key]
        # abs: a reward is β times the difference of sums near 70 nats, which float32 holds to 8e-6.
        assert (total / count).item() == pytest.approx(case["metrics"][key], rel=1e-4, abs=8e-6 * config["beta"]), key
