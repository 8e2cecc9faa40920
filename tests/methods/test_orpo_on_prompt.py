"""`--orpo_nll_on_prompt`: the likelihood of prompt and chosen answer together, however prompts are laid out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from burnish import DPOConfig
from burnish.demo import demo_paths
from burnish.errors import ConfigError
from jobs import POLICY, job, movement_ratio, write_pairs
from runs import read_metrics, run_burnish

BETA = 0.3


def _expected(rows: list[dict[str, Any]]) -> float:
    """The step's loss with transformers' own forward: every token after the first counts, in sum and divisor."""
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    likelihood, tokens, odds = 0.0, 0, []
    for row in rows:
        log_odds = []
        for name in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[name]])
            with torch.no_grad():
                table = torch.log_softmax(model(ids).logits[0, :-1].double(), dim=-1)
            logps = table.gather(1, ids[0, 1:, None])[:, 0].numpy()
            average = logps[len(row["prompt_ids"]) - 1 :].mean()
            log_odds.append(average - np.log1p(-np.exp(average)))
            if name == "chosen_ids":
                likelihood, tokens = likelihood - logps.sum(), tokens + len(logps)
        odds.append(-BETA * np.log(1 / (1 + np.exp(log_odds[1] - log_odds[0]))))
    return likelihood / tokens + float(np.mean(odds))


@pytest.mark.parametrize(
    "words",
    [[], ["--max_tokens_per_micro_batch", 50], ["--attn_implementation", "eager"]],
    ids=["packed", "8 micro-batches", "padded"],
)
def test_one_step_is_the_formula(words: list[Any], tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    flags = ["--loss_type", "orpo", "--beta", BETA, "--orpo_nll_on_prompt", "--max_steps", 1]
    run_burnish(*job(data, tmp_path / "run", *flags, *words))
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert read_metrics(tmp_path / "run")[0]["loss"] == pytest.approx(_expected(rows), rel=1e-5)


def test_ten_steps_move_alike_however_they_are_cut(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=80)
    flags = ["--loss_type", "orpo", "--beta", BETA, "--orpo_nll_on_prompt", "--max_steps", 10]
    run_burnish(*job(data, tmp_path / "one", *flags))
    run_burnish(*job(data, tmp_path / "two", *flags, "--max_tokens_per_micro_batch", 50))
    assert movement_ratio(tmp_path / "one", tmp_path / "two") < 1e-4


def test_other_objectives_and_lists_refuse_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="orpo_nll_on_prompt is used by orpo, and not by sigmoid"):
        DPOConfig(orpo_nll_on_prompt=True)
    row = {"prompt": "Say.", "completions": ["a b", "c d", "e f"], "ranking": [0, 1, 2]}
    data = tmp_path / "lists.jsonl"
    data.write_text(json.dumps(row) + "\n")
    words = ["--loss_type", "orpo", "--orpo_nll_on_prompt", "--model_name_or_path", demo_paths().model]
    run_burnish(*job(data, tmp_path / "run", *words), expect=2)
    assert "orpo_nll_on_prompt belongs to pairs" in capsys.readouterr().err
