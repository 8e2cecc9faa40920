"""Seeded faults: each formula is spoilt in one place, and the comparison with its oracle must notice.

A mutant is a change of a function's source text. Comparisons are those of the other tests of this folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from burnish.objectives import coupled, lists, paired, paired_absolute, reference_free, reward, tokens, unpaired
from burnish.objectives.table import PAIRED
from objectives import oracles
from objectives.cases import SETTINGS, arguments, as_numbers, random_scores
from objectives.test_unpaired import SETTINGS as UNPAIRED_SETTINGS
from objectives.test_unpaired import random_scores as random_unpaired

PAIRED_MUTANTS = [
    # objective, module, function whose text changes, old, new
    ("sigmoid", paired, "sigmoid_loss", "beta * score", "score"),
    ("sigmoid", paired, "sigmoid_loss", "beta * score", "-beta * score"),
    ("sigmoid", paired, "sigmoid_loss", "minus_margin(beta * score_difference(scores, divergence), scores)",
     "beta * score_difference(scores, divergence)"),
    ("sigmoid", paired, "score_difference", "chosen_logratio) - ", "chosen_logratio) + "),
    ("sigmoid", paired, "minus_margin", "logits - scores.margin", "logits + scores.margin"),
    ("sigmoid", paired, "smoothed_logistic", "F.logsigmoid(-logits)", "F.logsigmoid(logits)"),
    ("sigmoid", paired, "smoothed_logistic", "(1 - label_smoothing)", "1"),
    ("hinge", paired, "hinge_loss", "1 - beta", "1 + beta"),
    ("hinge", paired, "hinge_loss", "torch.relu", "torch.abs"),
    ("ipo", paired, "ipo_loss", "2 * beta", "beta"),
    ("ipo", paired, "ipo_loss", ".square()", ".abs()"),
    ("ipo", paired, "average_score_difference", "scores.rejected_num_tokens", "scores.chosen_num_tokens"),
    ("ipo", paired, "average_score_difference", "scores.chosen_num_tokens.clamp(min=1)",
     "(scores.chosen_num_tokens - 1).clamp(min=1)"),
    ("sigmoid_norm", paired, "sigmoid_norm_loss", "average_score_difference", "score_difference"),
    ("exo_pair", paired, "exo_pair_loss", "_log(1 - label_smoothing)", "_log(label_smoothing)"),
    ("exo_pair", paired, "exo_pair_loss", "torch.sigmoid(-logits)", "torch.sigmoid(logits)"),
    ("exo_pair", paired, "exo_pair_loss", "- _log(label_smoothing)", "+ _log(label_smoothing)"),
    ("robust", paired, "robust_loss", "1 - 2 * label_smoothing", "1 - label_smoothing"),
    ("robust", paired, "robust_loss", "clean - label_smoothing", "clean + label_smoothing"),
    ("discopop", paired, "discopop_loss", "(1 - modulation)", "modulation"),
    ("discopop", paired, "discopop_loss", "torch.sigmoid(logits / discopop_tau)", "torch.sigmoid(logits)"),
    ("discopop", paired, "discopop_loss", "- logits).clamp", "+ logits).clamp"),
    ("odpo", paired, "odpo_loss", "return sigmoid_loss(scores, beta=beta)", "return hinge_loss(scores, beta=beta)"),
    ("dpop", paired, "dpop_loss", "relu(-scores", "relu(scores"),
    ("dpop", paired, "dpop_loss", "- dpop_lambda", "+ dpop_lambda"),
    ("sft", paired, "sft_loss", "return -", "return "),
    ("nca_pair", paired_absolute, "nca_pair_loss", "0.5 * F.logsigmoid(-chosen)", "F.logsigmoid(-chosen)"),
    ("nca_pair", paired_absolute, "nca_pair_loss", "F.logsigmoid(-rejected)", "F.logsigmoid(rejected)"),
    ("bco_pair", paired_absolute, "bco_pair_loss", "rejected_logratio - reward_baseline",
     "rejected_logratio + reward_baseline"),
    ("bco_pair", paired_absolute, "bco_pair_loss", "F.logsigmoid(-rejected)", "F.logsigmoid(rejected)"),
    ("sppo_hard", paired_absolute, "sppo_hard_loss", "rejected_logratio + target", "rejected_logratio - target"),
    ("sppo_hard", paired_absolute, "sppo_hard_loss", "1 / (2 * beta)", "1 / beta"),
    ("cal", paired_absolute, "cal_loss", "F.logsigmoid(score", "F.logsigmoid(beta * score"),
    ("apo_zero", paired_absolute, "apo_zero_loss", "sigmoid(-beta", "sigmoid(beta"),
    ("apo_down", paired_absolute, "apo_down_loss", "sigmoid(beta", "sigmoid(-beta"),
    ("apo_down", paired_absolute, "apo_down_loss", "sigmoid(-beta", "sigmoid(beta"),
    ("simpo", reference_free, "simpo_loss", "- simpo_gamma", "- beta * simpo_gamma"),
    ("simpo", reference_free, "simpo_loss", "scores.chosen_average", "scores.chosen_logps"),
    ("cpo", reference_free, "cpo_loss", "chosen_logps - scores", "chosen_logps + scores"),
    ("cpo", reference_free, "cpo_loss", "minus_margin(logits, scores)", "logits"),
    ("orpo", reference_free, "orpo_loss", "-beta * F", "-F"),
    ("orpo", reference_free, "orpo_loss", "log_odds(scores.chosen_average)", "scores.chosen_average"),
    ("orpo", reference_free, "log_odds", "average - torch", "average + torch"),
    ("alphapo", reference_free, "alphapo_loss", "- simpo_gamma", ""),
    ("alphapo", reference_free, "alphapo_reward", "(-alphapo_alpha * average)", "(alphapo_alpha * average)"),
    ("alphapo", reference_free, "alphapo_reward", "/ alphapo_alpha", ""),
    ("aot", coupled, "aot_loss", "_sorted(scores.chosen_logps - scores.rejected_logps)",
     "(scores.chosen_logps - scores.rejected_logps)"),
    ("aot", coupled, "aot_loss", "policy - reference", "reference - policy"),
    ("aot_unpaired", coupled, "aot_unpaired_loss", "_sorted(scores.rejected_logratio)", "scores.rejected_logratio"),
    ("aot_unpaired", coupled, "aot_unpaired_loss", "beta * difference", "difference"),
]  # fmt: skip


def mutate(module: ModuleType, function: str, old: str, new: str) -> dict[str, Any]:
    """The module's names with one function's text changed, imports and all."""
    source = inspect.getsource(getattr(module, function))
    body = source.rpartition('"""')[2]
    assert body.count(old) >= 1, f"{function} no longer holds {old!r}: write the mutant anew"
    text = inspect.getsource(module).replace(source, source[: -len(body)] + body.replace(old, new, 1))
    names: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(text, f"<mutant of {function}>", "exec", dont_inherit=True), names)
    return names


def survives(got: Tensor, expected: Any) -> bool:
    return torch.allclose(got, torch.as_tensor(expected, dtype=got.dtype), rtol=1e-6, atol=1e-8)


def label(value: Any) -> str:
    return value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else str(value)


def paired_oracle(name: str) -> Any:
    return oracles.pair_losses(name, as_numbers(random_scores(1)), SETTINGS)


@pytest.mark.parametrize("name", PAIRED)
def test_the_unspoilt_objective_survives(name):
    function = PAIRED[name].function
    assert survives(function(random_scores(1), **arguments(function, SETTINGS)), paired_oracle(name))


@pytest.mark.parametrize(("name", "module", "function", "old", "new"), PAIRED_MUTANTS, ids=label)
def test_spoilt_paired_objectives_are_noticed(name, module, function, old, new):
    loss = mutate(module, function, old, new)[PAIRED[name].function.__name__]
    assert not survives(loss(random_scores(1), **arguments(PAIRED[name].function, SETTINGS)), paired_oracle(name))


def test_every_paired_objective_has_a_mutant():
    assert {mutant[0] for mutant in PAIRED_MUTANTS} == set(PAIRED)


UNPAIRED_MUTANTS = [
    ("kto", "kto_loss", "- kl_reward", "+ kl_reward"),
    ("kto", "kto_loss", "sigmoid(-scores", "sigmoid(scores"),
    ("kto", "label_weights", "desirable_weight - undesirable_weight", "undesirable_weight - desirable_weight"),
    ("apo_zero_unpaired", "apo_zero_unpaired_loss", "* beta", ""),
    ("bco", "bco_loss", "- reward_baseline", ""),
    ("bco", "bco_loss", "-F.logsigmoid", "F.logsigmoid"),
]


@pytest.mark.parametrize(("name", "function", "old", "new"), UNPAIRED_MUTANTS)
def test_spoilt_unpaired_objectives_are_noticed(name, function, old, new):
    scores = random_unpaired(1)
    rows = zip(scores.logratio.tolist(), scores.is_desirable.bool().tolist(), strict=True)
    expected = [oracles.UNPAIRED_ORACLES[name](ratio, label, UNPAIRED_SETTINGS) for ratio, label in rows]
    loss = mutate(unpaired, function, old, new)[f"{name}_loss"]
    assert not survives(loss(scores, **arguments(unpaired.UNPAIRED[name].function, UNPAIRED_SETTINGS)), expected)


def plackett_luce(names: dict[str, Any]) -> bool:
    ratios = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.5, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    scores = lists.ListScores(logps=ratios, ref_logps=torch.zeros_like(ratios), mask=mask, weight=torch.ones(2))
    expected = [oracles.plackett_luce([0.3, -1.0, 2.0], 0.4), oracles.plackett_luce([1.0, 0.5], 0.4)]
    return survives(names["plackett_luce_loss"](scores, beta=0.4), expected)


def softmax(names: dict[str, Any]) -> bool:
    ratios = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    scores = lists.ListScores(logps=ratios, ref_logps=torch.zeros_like(ratios), mask=mask, weight=torch.ones(1))
    return survives(names["softmax_loss"](scores, beta=0.4), [oracles.softmax([0.3, -1.0, 2.0], 0.4)])


def discount(names: dict[str, Any]) -> bool:
    offsets = torch.tensor([0, 1, 2, 0, 1])
    got = names["discount_weights"](torch.tensor([3.0, 2.0]), torch.tensor([0, 0, 0, 1, 1]), offsets, ld_alpha=0.5)
    return survives(got, [1.0, 1.0, 0.5, 1.0, 1.0])


def sums(names: dict[str, Any]) -> bool:
    logps = torch.tensor([-1.0, -2.0, -4.0, -8.0])
    got = names["aggregate_logps"](
        logps,
        torch.tensor([0, 1, 1, 1]),
        torch.tensor([0, 0, 1, 2]),
        num_completions=2,
        max_counted=3,
        token_weights=torch.tensor([1.0, 1.0, 1.0, 0.5]),
    )
    return survives(got, [-1.0, -10.0])


def likelihood(names: dict[str, Any]) -> bool:
    got = names["likelihood_weights"](
        torch.tensor([-1.0, -2.0, -0.5]),
        torch.tensor([-0.1, -0.2, -0.3]),
        torch.tensor([0, 0, 1]),
        torch.tensor([0, 1, 0]),
        torch.tensor([2.0, 1.0]),
        max_counted=2,
    )
    return survives(got, [torch.tensor(-1.35 - 0.2).exp()])


def bradley_terry(names: dict[str, Any]) -> bool:
    values = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-0.4], dtype=torch.float64)
    got = names["bradley_terry_loss"](
        *values,
        margin=torch.tensor([0.3], dtype=torch.float64),
        label_smoothing=torch.tensor([0.1], dtype=torch.float64),
        center_rewards_coefficient=0.2,
    )
    likelihood = 0.9 * oracles.log_sigma(0.7 + 0.4 - 0.3) + 0.1 * oracles.log_sigma(0.3 - 0.4 - 0.7)
    return survives(got, [-likelihood + 0.2 * 0.3**2])


OTHER_MUTANTS: list[tuple[Callable[[dict[str, Any]], bool], ModuleType, str, str, str]] = [
    (plackett_luce, lists, "_log_sum_of_rest", ".triu()", ".tril()"),
    (plackett_luce, lists, "_log_sum_of_rest", ".triu()", ".triu(1)"),
    (plackett_luce, lists, "_log_sum_of_rest", "later & mask[:, None, :]", "later"),
    (plackett_luce, lists, "plackett_luce_loss", "* scores.mask", ""),
    (plackett_luce, lists, "plackett_luce_loss", "beta * ", ""),
    (softmax, lists, "softmax_loss", "rewards[:, 1:] - rewards[:, :1]", "rewards[:, :1] - rewards[:, 1:]"),
    (softmax, lists, "softmax_loss", "rewards[:, 1:] - rewards[:, :1]", "rewards[:, 1:]"),
    (discount, tokens, "discount_weights", ">= shared", "> shared"),
    (discount, tokens, "discount_weights", "(1 - ld_alpha)", "ld_alpha * 0.5"),
    (discount, tokens, "discount_weights", "amin", "amax"),
    (sums, tokens, "aggregate_logps", "* max_counted + token_offset", "* max_counted"),
    (sums, tokens, "aggregate_logps", "token_logps * token_weights", "token_logps"),
    (likelihood, tokens, "likelihood_weights", "token_logps.detach() - ", "token_logps.detach() + "),
    (likelihood, tokens, "likelihood_weights", "/ num_tokens", "/ 1 + 0 * num_tokens"),
    (bradley_terry, reward, "bradley_terry_loss", "difference - margin", "difference + margin"),
    (bradley_terry, reward, "bradley_terry_loss", "(1 - label_smoothing) * losses", "losses"),
    (bradley_terry, reward, "bradley_terry_loss", "F.logsigmoid(-difference)", "F.logsigmoid(difference)"),
    (bradley_terry, reward, "bradley_terry_loss", "chosen_rewards + rejected_rewards",
     "chosen_rewards - rejected_rewards"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "module"), list(dict.fromkeys((mutant[0], mutant[1]) for mutant in OTHER_MUTANTS)), ids=label
)
def test_the_unspoilt_function_survives(check, module):
    assert check(vars(module))


@pytest.mark.parametrize(("check", "module", "function", "old", "new"), OTHER_MUTANTS, ids=label)
def test_spoilt_lists_tokens_and_rewards_are_noticed(check, module, function, old, new):
    assert not check(mutate(module, function, old, new))
