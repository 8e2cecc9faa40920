"""`burnish reward` and `burnish score`: Bradley-Terry on what AutoModelForSequenceClassification pools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from burnish import RewardConfig
from burnish.demo import demo_paths
from burnish.errors import ConfigError
from jobs import POLICY, job, stage_job, write_pairs
from runs import read_metrics, run_burnish, spawn_burnish

SAME_UPDATE = 1e-4
TIMES = ("_runtime", "_per_second", "_seconds")


def _reward_job(data: Path, output: Path, *words: Any) -> list[Any]:
    return stage_job("reward", data, output, "--learning_rate", 1e-3, *words)


def _rows(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.read_text().splitlines()]


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def _pooled(model: Any, ids: list[int], pad: int) -> float:
    """What transformers gives for a sequence that is padded on the right."""
    with torch.no_grad():
        batch = torch.tensor([[*ids, pad, pad]])
        return float(model(batch, attention_mask=torch.tensor([[1] * len(ids) + [0, 0]])).logits)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    data = write_pairs(folder / "pairs.jsonl", count=24)
    run_burnish(*_reward_job(data, folder / "run", "--max_steps", 6, "--center_rewards_coefficient", 0.01))
    return folder


def test_the_saved_model_gives_the_rewards_that_were_trained(trained: Path) -> None:
    run_burnish("score", trained / "run" / "model", trained / "pairs.jsonl", trained / "scored.jsonl")
    model = AutoModelForSequenceClassification.from_pretrained(trained / "run" / "model")
    assert type(model).__name__ == "Qwen2ForSequenceClassification"
    assert model.config.num_labels == 1
    for row in _rows(trained / "scored.jsonl"):
        for name, reward in zip(("chosen_ids", "rejected_ids"), row["rewards"], strict=True):
            pooled = _pooled(model, row["prompt_ids"] + row[name], model.config.pad_token_id)
            assert reward == pytest.approx(pooled, abs=1e-5)
        assert row["margin"] == pytest.approx(row["rewards"][0] - row["rewards"][1])


@pytest.mark.parametrize(("center", "smoothing"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.2)])
def test_one_step_is_the_papers_formula(center: float, smoothing: float, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8, margin=0.25, label_smoothing=smoothing)
    words = ["--max_steps", 1, "--learning_rate", 0, "--center_rewards_coefficient", center]
    run_burnish(*_reward_job(data, tmp_path / "run", *words))
    record = read_metrics(tmp_path / "run")[0]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    pad = model.config.pad_token_id
    rows = _rows(data)
    chosen, rejected = (
        np.array([_pooled(model, row["prompt_ids"] + row[name], pad) for row in rows])
        for name in ("chosen_ids", "rejected_ids")
    )
    difference = chosen - rejected - 0.25
    losses = (1 - smoothing) * np.log1p(np.exp(-difference)) + smoothing * np.log1p(np.exp(difference))
    losses += center * (chosen + rejected) ** 2
    more = np.array([len(row["chosen_ids"]) - len(row["rejected_ids"]) for row in rows])
    expected = {
        "loss": losses.mean(),
        "accuracy": (chosen > rejected).mean(),
        "margin": (chosen - rejected).mean(),
        "mean_reward": (chosen + rejected).mean() / 2,
        "min_reward": min(chosen.min(), rejected.min()),
        "max_reward": max(chosen.max(), rejected.max()),
        "accuracy/chosen_shorter": (chosen > rejected)[more < 0].mean(),
        "accuracy/chosen_longer": (chosen > rejected)[more > 0].mean(),
    }
    for name, value in expected.items():
        assert record[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("max_tokens", [40, 160], ids=["8 micro-batches", "2 micro-batches"])
def test_ten_steps_move_alike_however_they_are_cut(max_tokens: int, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=80)
    run_burnish(*_reward_job(data, tmp_path / "start", "--max_steps", 1, "--learning_rate", 0))
    run_burnish(*_reward_job(data, tmp_path / "one", "--max_steps", 10))
    run_burnish(*_reward_job(data, tmp_path / "two", "--max_steps", 10, "--max_tokens_per_micro_batch", max_tokens))
    start, one, two = (_tensors(tmp_path / name) for name in ("start", "one", "two"))
    apart = sum((one[name] - two[name]).square().sum() for name in one)
    moved = sum((one[name] - start[name]).square().sum() for name in one)
    assert float((apart / moved) ** 0.5) < SAME_UPDATE
    steps = [[one for one in read_metrics(tmp_path / name) if one["kind"] == "train"] for name in ("one", "two")]
    assert len(steps[0]) == 10
    for first, second in zip(*steps, strict=True):
        for name in ("loss", "margin", "min_reward", "max_reward"):
            assert first[name] == pytest.approx(second[name], abs=1e-4), name


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = ["--max_steps", 6, "--save_strategy", "steps", "--save_steps", 3, "--logging_steps", 2]
    for name in ("whole", "cut"):
        run_burnish(*_reward_job(data, tmp_path / name, *words))
    (tmp_path / "cut" / "checkpoints" / "step-6" / "MANIFEST.json").unlink()
    run_burnish(*_reward_job(data, tmp_path / "cut", *words, "--resume_from_checkpoint", "auto"))
    one, two = _tensors(tmp_path / "whole"), _tensors(tmp_path / "cut")
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain = [
        [{key: value for key, value in record.items() if not key.endswith(TIMES)} for record in read_metrics(run)]
        for run in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert plain[0] == plain[1]


def test_ranked_lists_train_on_all_their_pairs(tmp_path: Path) -> None:
    completions = ["a fine answer", "an answer", "no", "nothing at all"]
    data = tmp_path / "lists.jsonl"
    row = {"prompt": "Say something.", "completions": completions, "ranking": [0, 1, 2, 2]}
    data.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    words = ["--model_name_or_path", demo_paths().model, "--max_steps", 12, "--learning_rate", 1e-3]
    run_burnish(*_reward_job(data, tmp_path / "run", *words))
    records = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "train"]
    assert records[-1]["accuracy"] == 1
    assert records[-1]["loss"] < records[0]["loss"]
    run_burnish("score", tmp_path / "run" / "model", data, tmp_path / "scored.jsonl")
    rewards = _rows(tmp_path / "scored.jsonl")[0]["rewards"]
    assert rewards[0] > rewards[1] > max(rewards[2:])


@pytest.mark.slow  # 15 s: two more processes
def test_two_ranks_write_the_one_file_that_one_process_writes(trained: Path, tmp_path: Path) -> None:
    words = ["--max_tokens_per_micro_batch", 64, "--on_bad_row", "skip"]
    data = tmp_path / "pairs.jsonl"
    lines = (trained / "pairs.jsonl").read_text().splitlines()
    data.write_text("\n".join([*lines[:5], '{"prompt_ids": [3], "chosen_ids": []}', *lines[5:]]) + "\n")
    model = trained / "run" / "model"
    run_burnish("score", model, data, tmp_path / "one.jsonl", *words)
    done = spawn_burnish("launch", "--num_processes", 2, "score", model, data, tmp_path / "two.jsonl", *words)
    assert done.returncode == 0, done.stderr
    one, two = (_rows(tmp_path / name) for name in ("one.jsonl", "two.jsonl"))
    assert len(one) == 24
    assert [row["chosen_ids"] for row in two] == [row["chosen_ids"] for row in one]
    for row, other in zip(one, two, strict=True):
        assert other["rewards"] == pytest.approx(row["rewards"], abs=1e-6)
    assert done.stderr.count("24 rows with their rewards") == 1
    refused = spawn_burnish("launch", "--num_processes", 2, "score", model, data, tmp_path / "two.jsonl")
    assert refused.returncode == 2
    assert refused.stderr.count("exists already") == 1


def test_rewards_become_margins_of_dpo(trained: Path, tmp_path: Path) -> None:
    run_burnish("score", trained / "run" / "model", trained / "pairs.jsonl", tmp_path / "scored.jsonl")
    whole = ["--global_batch_size", 24, "--beta", 0.5]
    run_burnish(*job(tmp_path / "scored.jsonl", tmp_path / "odpo", "--loss_type", "odpo", "--max_steps", 1, *whole))
    margins = [row["margin"] for row in _rows(tmp_path / "scored.jsonl")]
    assert np.ptp(margins) > 0
    # Before the first update every reward is 0: -log σ(0 - margin) is all that the loss can be.
    expected = float(np.mean(np.log1p(np.exp(margins))))
    assert read_metrics(tmp_path / "odpo")[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.log(2), rel=1e-3)


@pytest.mark.parametrize(
    ("said", "margin"),
    [
        ({"chosen": " good", "rejected": " bad"}, 3.0),
        ({"completions": [" bad", " good"], "ranking": [1, 0]}, 3.0),
        ({"completions": [" bad", " good"], "scores": [0.0, 2.0]}, 3.0),
        ({"completions": [" bad", " good"], "ranking": [0, 1]}, -3.0),
        ({"completions": [" bad", " good"], "ranking": [0, 0]}, None),
        ({"completions": [" bad", " good", " good"], "ranking": [2, 0, 1]}, None),
    ],
)
def test_a_margin_is_that_of_the_better_completion_wherever_it_stands(
    said: dict[str, Any], margin: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `burnish dpo` orders them: rewards are in the row's order, and margins chosen minus rejected."""
    worth = {" good": 2.0, " bad": -1.0}
    given = said.get("completions") or [said["chosen"], said["rejected"]]

    def score_groups(rows: Any, *_: Any, **__: Any) -> dict[int, list[float]]:
        return {place.row: [worth[text] for text in given] for _, place in rows}

    monkeypatch.setattr("burnish.methods.scoring_rows.score_groups", score_groups)
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "Which?", **said}) + "\n")
    run_burnish("score", POLICY, data, tmp_path / "scored.jsonl")
    row = _rows(tmp_path / "scored.jsonl")[0]
    assert row["rewards"] == [worth[text] for text in given]
    assert row.get("margin") == margin


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"center_rewards_coefficient": -0.1}, "must be ≥ 0"),
        ({"token_metrics": True}, "is not for reward models"),
        ({"num_samples": 1}, "answers nothing"),
    ],
)
def test_settings_that_have_no_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewardConfig(**settings)


def test_score_refuses_to_write_over_a_file_and_models_without_a_head_are_named(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_burnish("score", trained / "run" / "model", trained / "pairs.jsonl", trained / "pairs.jsonl", expect=2)
    assert "exists already" in capsys.readouterr().err
    run_burnish("score", trained / "run" / "model", expect=2)
    assert "takes a model, rows and the file to write" in capsys.readouterr().err
    run_burnish("score", POLICY, trained / "pairs.jsonl", trained / "other.jsonl", expect=2)
    assert "has no reward head" in capsys.readouterr().err
    assert not (trained / "other.jsonl").exists()
