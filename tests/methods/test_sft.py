"""`burnish sft`: the loss is the plain one, however rows are cut or packed; what counts is what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from burnish import SFTConfig
from burnish.errors import ConfigError
from jobs import POLICY, model_tensors, movement_ratio, stage_job, write_completions
from runs import read_metrics, run_burnish

SAME_UPDATE = 1e-4
TIMES = ("_runtime", "_per_second", "_seconds")


def _plain_step(data: Path, *, epsilon: float, z: float, dft: bool) -> tuple[float, float]:
    """Loss and gradient norm of one step on all rows, by transformers' own forward, one row at a time."""
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    total = torch.zeros(())
    count = sum(len(row["completion_ids"]) for row in rows)
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        first = len(row["prompt_ids"])
        logits = model(ids).logits[0, first - 1 : -1]
        log_probabilities = torch.log_softmax(logits, dim=-1)
        logps = log_probabilities.gather(1, ids[0, first:, None]).squeeze(1)
        losses = -logps * (logps.detach().exp() if dft else 1)
        losses = (1 - epsilon) * losses - epsilon * log_probabilities.mean(dim=1)
        total = total + (losses + z * torch.logsumexp(logits, dim=-1) ** 2).sum()
    loss = total / count
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    return loss.item(), norm.item()


def _plain_metrics(data: Path) -> dict[str, float]:
    """Means over all counted tokens, and how many tokens the rows have, by transformers' own forward."""
    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    entropies, right, count = [], [], 0
    for row in map(json.loads, data.read_text().splitlines()):
        ids, first = torch.tensor([row["prompt_ids"] + row["completion_ids"]]), len(row["prompt_ids"])
        with torch.no_grad():
            logits = model(ids).logits[0, first - 1 : -1]
        entropies.append(torch.distributions.Categorical(logits=logits).entropy())
        right.append((logits.argmax(dim=-1) == ids[0, first:]).float())
        count += ids.shape[1]
    means = {"entropy": entropies, "mean_token_accuracy": right}
    return {name: torch.cat(values).mean().item() for name, values in means.items()} | {"num_tokens": count}


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], {}),
        (["--loss_type", "dft"], {"dft": True}),
        (["--label_smoothing_factor", 0.1], {"epsilon": 0.1}),
        (["--z_loss_coef", 0.01, "--packing"], {"z": 0.01}),
    ],
    ids=["nll", "dft", "smoothing", "z-loss"],
)
def test_one_step_is_the_formula_on_plain_logits(flags: list[Any], settings: dict[str, Any], tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=8)
    run_burnish(*stage_job("sft", data, tmp_path / "run", "--max_steps", 1, "--max_grad_norm", 0, *flags))
    record = read_metrics(tmp_path / "run")[0]
    loss, norm = _plain_step(data, **{"epsilon": 0.0, "z": 0.0, "dft": False, **settings})
    assert record["loss"] == pytest.approx(loss, rel=1e-5)
    assert record["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for name, value in _plain_metrics(data).items():
        assert record[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    "flags",
    [["--max_tokens_per_micro_batch", 40], ["--max_tokens_per_micro_batch", 110], ["--packing", "--max_length", 64]],
    ids=["8 micro-batches", "2 micro-batches", "packed"],
)
def test_ten_steps_move_alike_however_they_are_cut_or_packed(flags: list[Any], tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=80)
    run_burnish(*stage_job("sft", data, tmp_path / "one", "--max_steps", 10))
    run_burnish(*stage_job("sft", data, tmp_path / "two", "--max_steps", 10, *flags))
    assert movement_ratio(tmp_path / "one", tmp_path / "two") < SAME_UPDATE
    for one, two in zip(read_metrics(tmp_path / "one")[:10], read_metrics(tmp_path / "two")[:10], strict=True):
        for name in ("loss", "entropy", "mean_token_accuracy"):
            assert one[name] == pytest.approx(two[name], abs=1e-4), name


@pytest.mark.parametrize("extra", [["--packing"], ["--neftune_noise_alpha", 5, "--z_loss_coef", 1e-4]], ids=str)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(extra: list[Any], tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl")
    words = ["--max_steps", 6, "--save_strategy", "steps", "--save_steps", 2, *extra]
    for name in ("whole", "cut"):
        run_burnish(*stage_job("sft", data, tmp_path / name, *words))
    for later in (4, 6):
        (tmp_path / "cut" / "checkpoints" / f"step-{later}" / "MANIFEST.json").unlink()
    run_burnish(*stage_job("sft", data, tmp_path / "cut", *words, "--resume_from_checkpoint", "auto"))
    one, two = model_tensors(tmp_path / "whole"), model_tensors(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)
    records = [
        [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in read_metrics(run)]
        for run in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert records[0] == records[1]


def test_noise_on_embeddings_changes_training_and_not_evaluation(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=8)
    words = ["--max_steps", 1, "--eval_dataset_name", data, "--eval_on_start", "--eval_steps", 1, "--learning_rate", 0]
    run_burnish(*stage_job("sft", data, tmp_path / "plain", *words))
    run_burnish(*stage_job("sft", data, tmp_path / "noisy", *words, "--neftune_noise_alpha", 20))
    plain, noisy = (read_metrics(tmp_path / name) for name in ("plain", "noisy"))
    assert plain[0]["eval_loss"] == noisy[0]["eval_loss"]
    assert plain[1]["loss"] != pytest.approx(noisy[1]["loss"], rel=1e-4)
    assert plain[0]["eval_loss"] == pytest.approx(plain[1]["loss"], rel=1e-5)


def test_an_adapter_learns_a_few_rows_by_heart(tmp_path: Path) -> None:
    data = write_completions(tmp_path / "rows.jsonl", count=8)
    words = ["--max_steps", 40, "--use_peft", "--lora_r", 8, "--learning_rate", 5e-2]
    run_burnish(*stage_job("sft", data, tmp_path / "run", *words))
    records = read_metrics(tmp_path / "run")
    assert records[-2]["loss"] < 0.8 * records[0]["loss"]
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing_factor": 0.1, "loss_type": "dft"}, "used by loss_type nll, and not by dft"),
        ({"packing": True, "max_length": None}, "--packing needs --max_length"),
        ({"loss_type": "sigmoid"}, "must be one of nll, dft"),
        ({"z_loss_coef": -1}, "must be ≥ 0"),
        ({"neftune_noise_alpha": 0}, "must be > 0"),
        ({"label_smoothing_factor": 1.0}, r"must be in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SFTConfig(**settings)


def test_a_setting_of_another_method_is_refused_by_the_methods_that_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_completions(tmp_path / "rows.jsonl")
    run_burnish(*stage_job("sft", data, tmp_path / "run", "--beta", 0.1), expect=2)
    assert "--beta: a setting of burnish dpo" in capsys.readouterr().err
    run_burnish(*stage_job("dpo", data, tmp_path / "run", "--packing"), expect=2)
    assert "--packing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_preference_rows_are_no_completions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8]}) + "\n")
    run_burnish(*stage_job("sft", path, tmp_path / "run"), expect=2)
    assert "a preference pair, not a conversation" in capsys.readouterr().err
