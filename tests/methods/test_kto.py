"""`burnish kto`: the paper's loss with the step's KL term, however the step is cut, in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from burnish import KTOConfig
from burnish.errors import ConfigError
from jobs import GOLDEN, POLICY, model_tensors, movement_ratio, stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

SAME_UPDATE = 1e-4
TIMES = ("_runtime", "_per_second", "_seconds")
BETA = 0.3
AGAINST_ANOTHER = ["--ref_model_name_or_path", GOLDEN / "reference", "--train_sampling_strategy", "sequential"]
"""Rows in their order, and a reference that no log-ratio is 0 against."""


def _written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _kto_job(data: Path, output: Path, *words: Any) -> list[Any]:
    return stage_job("kto", data, output, "--reference_cache", "memory", "--beta", BETA, *words)


def _logratio(models: list[Any], prompt: list[int], completion: list[int]) -> float:
    """log π - log π_ref of a completion by transformers' own forward."""
    ids = torch.tensor([prompt + completion])
    logps = []
    for model in models:
        with torch.no_grad():
            table = torch.log_softmax(model(ids).logits[0, len(prompt) - 1 : -1].double(), dim=-1)
        logps.append(table.gather(1, ids[0, len(prompt) :, None]).sum().item())
    return logps[0] - logps[1]


def _expected(
    rows: list[dict[str, Any]], loss_type: str, *, weights: tuple[float, float] = (1.0, 1.0), baseline: float = 0.0
) -> dict[str, float]:
    """The step's loss and metrics from the paper, with plain loops; row i's prompt meets completion i - 1.

    `weights` are those of desirable and of undesirable rows, `baseline` is BCO's delta.
    """
    models = [
        AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32) for name in ("policy", "reference")
    ]
    rewards = [BETA * _logratio(models, row["prompt_ids"], row["completion_ids"]) for row in rows]
    others = [
        _logratio(models, row["prompt_ids"], rows[number - 1]["completion_ids"]) for number, row in enumerate(rows)
    ]
    z = max(0.0, BETA * float(np.mean(others))) if loss_type == "kto" else 0.0
    signs = [1 if row["label"] else -1 for row in rows]
    if loss_type == "bco":
        losses = [np.log1p(np.exp(-sign * (reward - baseline))) for sign, reward in zip(signs, rewards, strict=True)]
    else:
        losses = [1 / (1 + np.exp(sign * (reward - z))) for sign, reward in zip(signs, rewards, strict=True)]
    good = [reward for reward, sign in zip(rewards, signs, strict=True) if sign > 0]
    bad = [reward for reward, sign in zip(rewards, signs, strict=True) if sign < 0]
    return {
        "loss": float(np.mean([weights[sign < 0] * loss for sign, loss in zip(signs, losses, strict=True)])),
        "rewards/chosen": float(np.mean(good)),
        "rewards/rejected": float(np.mean(bad)),
        "rewards/margins": float(np.mean(good) - np.mean(bad)),
        "rewards/accuracies": float(np.mean([sign * reward > 0 for sign, reward in zip(signs, rewards, strict=True)])),
        "kl": z / BETA,
    }


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired", "bco"])
@pytest.mark.parametrize("max_tokens", [40, 100_000])
def test_one_step_is_the_papers_formula(loss_type: str, max_tokens: int, tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", seed=1, count=8, labelled=True)
    flags = [*AGAINST_ANOTHER, "--max_steps", 1, "--loss_type", loss_type, "--max_tokens_per_micro_batch", max_tokens]
    run_burnish(*_kto_job(data, tmp_path / "run", *flags))
    record = read_metrics(tmp_path / "run")[0]
    expected = _expected(_written(data), loss_type)
    if loss_type != "kto":
        assert "kl" not in record
        del expected["kl"]
    else:
        assert expected["kl"] > 0
    for name, value in expected.items():
        assert record[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired", "bco"])
@pytest.mark.parametrize("given", [None, (1.5, 0.5)], ids=["balanced", "given"])
def test_a_loss_is_weighed_by_its_label(given: tuple[float, float] | None, loss_type: str, tmp_path: Path) -> None:
    """Two desirable rows of six: their weight of 2 brings both kinds to the same sum, unless weights are given."""
    rows = _written(write_completions(tmp_path / "rows.jsonl", seed=1, count=6, labelled=True))
    for number, row in enumerate(rows):
        row["label"] = number in (1, 4)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [*AGAINST_ANOTHER, "--max_steps", 1, "--global_batch_size", 6, "--loss_type", loss_type]
    flags += [] if given is None else ["--desirable_weight", given[0], "--undesirable_weight", given[1]]
    run_burnish(*_kto_job(data, tmp_path / "run", *flags))
    expected = _expected(rows, loss_type, weights=given or (2.0, 1.0))["loss"]
    assert read_metrics(tmp_path / "run")[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(_expected(rows, loss_type)["loss"], rel=1e-2)


def test_bcos_delta_is_the_mean_of_both_kinds_in_earlier_steps_and_evaluation_leaves_it(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", seed=1, count=12, labelled=True)
    held_out = write_completions(tmp_path / "held-out.jsonl", seed=2, count=6, labelled=True)
    flags = [*AGAINST_ANOTHER, "--global_batch_size", 4, "--max_steps", 3, "--learning_rate", 0, "--loss_type", "bco"]
    run_burnish(*_kto_job(data, tmp_path / "run", *flags, "--eval_dataset_name", held_out, "--eval_steps", 1))
    rows, others = _written(data), _written(held_out)
    seen: list[dict[str, float]] = []
    for number, step in enumerate((rows[:4], rows[4:8], rows[8:])):
        sides = [[record[f"rewards/{side}"] for record in seen] for side in ("chosen", "rejected")]
        delta = float(np.mean([np.mean(side) for side in sides])) if seen else 0.0
        seen.append(_expected(step, "bco", baseline=delta))
        after = [[record[f"rewards/{side}"] for record in seen] for side in ("chosen", "rejected")]
        later = float(np.mean([np.mean(side) for side in after]))
        evaluated = _expected(others, "bco", baseline=later)["loss"]
        records = [record for record in read_metrics(tmp_path / "run") if record["step"] == number + 1]
        loss = next(record["loss"] for record in records if record["kind"] == "train")
        assert loss == pytest.approx(seen[-1]["loss"], rel=1e-4)
        assert next(record["eval_loss"] for record in records if "eval_loss" in record) == pytest.approx(
            evaluated, rel=1e-4
        )
        assert abs(later) > 0.01


@pytest.mark.parametrize("loss_type", ["kto", "bco"])
@pytest.mark.parametrize("max_tokens", [40, 110], ids=["8 micro-batches", "2 micro-batches"])
def test_ten_steps_move_alike_however_they_are_cut(loss_type: str, max_tokens: int, tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=80, labelled=True)
    words = ["--max_steps", 10, "--loss_type", loss_type]
    run_burnish(*_kto_job(data, tmp_path / "one", *words))
    run_burnish(*_kto_job(data, tmp_path / "two", *words, "--max_tokens_per_micro_batch", max_tokens))
    assert movement_ratio(tmp_path / "one", tmp_path / "two") < SAME_UPDATE
    for one, two in zip(read_metrics(tmp_path / "one")[:10], read_metrics(tmp_path / "two")[:10], strict=True):
        for name in {"loss", "rewards/margins", "kl"} & one.keys():
            assert one[name] == pytest.approx(two[name], abs=1e-4), name


@pytest.mark.parametrize("loss_type", ["kto", "bco"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(loss_type: str, tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", labelled=True)
    words = ["--max_steps", 6, "--save_strategy", "steps", "--save_steps", 2, "--loss_type", loss_type]
    for name in ("whole", "cut"):
        run_burnish(*_kto_job(data, tmp_path / name, *words))
    for later in (4, 6):
        (tmp_path / "cut" / "checkpoints" / f"step-{later}" / "MANIFEST.json").unlink()
    run_burnish(*_kto_job(data, tmp_path / "cut", *words, "--resume_from_checkpoint", "auto"))
    one, two = model_tensors(tmp_path / "whole"), model_tensors(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain = [
        [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in read_metrics(run)]
        for run in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert plain[0] == plain[1]


def test_pairs_become_two_rows_each_and_an_evaluation_is_one_step(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=12)
    words = ["--num_train_epochs", 2, "--eval_dataset_name", data, "--eval_steps", 3, "--use_peft", "--lora_r", 4]
    run_burnish(*_kto_job(data, tmp_path / "run", *words))
    records = read_metrics(tmp_path / "run")
    assert records[0]["rewards/chosen"] == 0
    assert records[0]["loss"] == pytest.approx(0.5)
    assert records[-1]["epoch"] == 2
    assert [record for record in records if "eval_kl" in record]
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()


def test_labels_are_balanced_unless_weights_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        json.loads(line) for line in write_completions(tmp_path / "all.jsonl", labelled=True).read_text().splitlines()
    ]
    data = tmp_path / "rows.jsonl"
    kept = [row for number, row in enumerate(rows) if row["label"] or number % 4 == 1]
    data.write_text("".join(json.dumps(row) + "\n" for row in kept))
    run_burnish(*_kto_job(data, tmp_path / "one", "--max_steps", 1))
    assert "desirable_weight 0.6667 balances them" in capsys.readouterr().err
    run_burnish(*_kto_job(data, tmp_path / "two", "--max_steps", 1, "--desirable_weight", 1.0))
    assert "balances" not in capsys.readouterr().err


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize(("count", "batch_size"), [(9, 8), (6, 1), (7, 3)])
def test_any_batch_size_trains_a_last_step_of_one_row_included(
    order: str, count: int, batch_size: int, tmp_path: Path
) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=count, labelled=True)
    words = ["--global_batch_size", batch_size, "--num_train_epochs", 2, "--train_sampling_strategy", order]
    run_burnish(*_kto_job(data, tmp_path / "run", *words, "--learning_rate", 1e-2))
    records = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert records[-1]["epoch"] == 2
    assert all(np.isfinite(record["kl"]) for record in records)
    assert any(record["kl"] > 0 for record in records)


def test_a_single_row_meets_the_completion_of_another_prompt(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=3, labelled=True)
    rows = _written(data)
    flags = [*AGAINST_ANOTHER, "--global_batch_size", 1, "--max_steps", 3, "--learning_rate", 0]
    run_burnish(*_kto_job(data, tmp_path / "run", *flags))
    models = [
        AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32) for name in ("policy", "reference")
    ]
    for number, record in enumerate(read_metrics(tmp_path / "run")[:3]):
        other = rows[(number + 1) % 3]["completion_ids"]
        expected = max(0.0, _logratio(models, rows[number]["prompt_ids"], other))
        assert record["kl"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_rows_of_one_prompt_alone_are_an_error_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt_ids": [5, 6, 7], "completion_ids": [n], "label": n % 2 == 0} for n in range(8, 16)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_burnish(*_kto_job(data, tmp_path / "run"), expect=2)
    assert "give rows of several prompts" in capsys.readouterr().err
    run_burnish(*_kto_job(data, tmp_path / "bco", "--loss_type", "bco", "--max_steps", 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0}, "must be > 0"),
        ({"loss_type": "sigmoid"}, "must be one of kto, apo_zero_unpaired, bco"),
        ({"undesirable_weight": -1}, "must be ≥ 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KTOConfig(**settings)


def test_rows_without_a_label_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_completions(tmp_path / "rows.jsonl")
    run_burnish(*_kto_job(data, tmp_path / "run"), expect=2)
    assert "not a completion with a label" in capsys.readouterr().err
    assert POLICY.exists()


def test_a_precomputed_reference_answers_for_mismatched_completions_of_every_epoch(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=16, labelled=True)
    held_out = write_completions(tmp_path / "held-out.jsonl", seed=1, count=8, labelled=True)
    words = ["--num_train_epochs", 2, "--eval_dataset_name", held_out, "--eval_steps", 2, "--reference_cache", "memory"]
    run_burnish(*stage_job("kto", data, tmp_path / "live", *words))
    run_burnish(*stage_job("kto", data, tmp_path / "before", *words, "--precompute_ref_log_probs"))
    names = ("loss", "kl", "grad_norm", "rewards/margins", "eval_loss", "eval_kl")
    before, live = (
        [{name: record[name] for name in names if name in record} for record in read_metrics(tmp_path / run)]
        for run in ("before", "live")
    )
    assert len(before) == len(live) == 7  # four steps, two evaluations, the summary
    for record, expected in zip(before, live, strict=True):
        assert record == pytest.approx(expected, rel=1e-5, abs=1e-6)
