"""What a run prints and leaves: records, checkpoints, the final model, the card, trackers' files, callbacks' events."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback, TrainerCallback

from burnish import DPOConfig, DPOTrainer
from jobs import POLICY, job, model_tensors, write_pairs
from runs import read_metrics, run_burnish

TRAIN_KEYS = [
    *("loss", "grad_norm", "learning_rate"),
    *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    *("logps/chosen", "logps/rejected", "logps/accuracies", "logits/chosen", "logits/rejected"),
    *("num_tokens", "num_computed_tokens", "epoch"),
]
SUMMARY_KEYS = [
    *("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "train_step_seconds"),
    "epoch",
]


def _eval_keys() -> list[str]:
    means = [f"eval_{key}" for key in TRAIN_KEYS if "/" in key]
    times = ["eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"]
    return [*times, *means, "epoch"]


def test_records_are_dict_literals_with_trls_keys_and_stand_unrounded_in_metrics_jsonl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "run", "--eval_dataset_name", data, "--eval_steps", 3, "--logging_steps", 3))
    printed = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [list(record) for record in printed] == [TRAIN_KEYS, _eval_keys(), SUMMARY_KEYS]
    kept = read_metrics(tmp_path / "run")
    assert [record["kind"] for record in kept] == ["train", "eval", "summary"]
    for record, unrounded in zip(printed, kept, strict=True):
        for key, value in record.items():
            assert value == pytest.approx(unrounded[key], rel=1e-5), key
            assert not isinstance(value, float) or float(f"{value:.6g}") == value


def test_metrics_are_exact_means_over_the_interval(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "each", "--max_steps", 3))
    run_burnish(*job(data, tmp_path / "all", "--max_steps", 3, "--logging_steps", 3))
    each, (together, _) = read_metrics(tmp_path / "each")[:3], read_metrics(tmp_path / "all")
    for key in ("loss", "rewards/chosen", "rewards/margins", "logps/rejected", "rewards/accuracies"):
        assert together[key] == pytest.approx(sum(record[key] for record in each) / 3, rel=1e-5), key
    assert together["num_tokens"] == each[-1]["num_tokens"]
    assert together["grad_norm"] == each[-1]["grad_norm"]


def test_the_final_folder_is_an_ordinary_model_with_template_and_card(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 2))
    folder = tmp_path / "run" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(POLICY).get_vocab()
    assert model.dtype == torch.float32
    card = (folder / "README.md").read_text()
    assert "base_model: policy" in card
    assert "rewards/margins" in card
    settings = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert settings["learning_rate"] == 1e-3
    assert settings["max_tokens_per_micro_batch"] > 0
    assert "train" in json.loads((tmp_path / "run" / "data_report.json").read_text())


def test_run_yaml_gives_the_same_run_again(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "one", "--max_steps", 3))
    run_burnish("dpo", "--config", tmp_path / "one" / "run.yaml", "--output_dir", tmp_path / "two")
    one, two = model_tensors(tmp_path / "one"), model_tensors(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_newest_and_the_best_checkpoints_are_kept(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = ["--num_train_epochs", 2, "--save_strategy", "steps", "--save_steps", 1, "--save_total_limit", 2]
    words += ["--eval_dataset_name", data, "--eval_steps", 1, "--load_best_model_at_end"]
    words += ["--metric_for_best_model", "rewards/margins", "--greater_is_better", "False"]
    run_burnish(*job(data, tmp_path / "run", *words))
    evaluations = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "eval"]
    best = min(evaluations, key=lambda record: record["eval_rewards/margins"])["step"]
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert f"step-{best}" in kept
    assert "step-6" in kept
    assert len(kept) == 2


def test_the_best_model_is_the_final_one_when_asked(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = ["--num_train_epochs", 2, "--eval_dataset_name", data, "--eval_steps", 1, "--load_best_model_at_end"]
    words += ["--metric_for_best_model", "eval_loss", "--greater_is_better", "True", "--save_strategy", "best"]
    run_burnish(*job(data, tmp_path / "run", *words))
    evaluations = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "eval"]
    best = max(evaluations, key=lambda record: record["eval_loss"])["step"]
    run_burnish(
        *job(data, tmp_path / "to-best", "--num_train_epochs", 2, "--save_strategy", "steps", "--save_steps", 1)
    )
    from burnish.engine.checkpoint import load_checkpoint

    expected = load_checkpoint(tmp_path / "to-best" / "checkpoints" / f"step-{best}").tensors["model"]
    final = model_tensors(tmp_path / "run")
    assert all(torch.equal(final[name], expected[name]) for name in final)


def test_tensorboard_gets_every_record(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 3, "--report_to", "tensorboard"))
    (events,) = (tmp_path / "run" / "trackers" / "burnish").glob("events.out.tfevents.*")
    accumulator = EventAccumulator(str(events)).Reload()
    values = {event.step: event.value for event in accumulator.Scalars("train/loss")}
    assert values == pytest.approx({record["step"]: record["loss"] for record in read_metrics(tmp_path / "run")[:3]})


class _Diary(TrainerCallback):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.losses: list[float] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_") and name != "on_log":
            return lambda *_, **__: self.events.append(name)
        return super().__getattribute__(name)

    def on_log(self, args: Any, state: Any, control: Any, **details: Any) -> None:
        assert state.global_step <= state.max_steps
        if "loss" in details["logs"]:
            self.losses.append(details["logs"]["loss"])


def _config(tmp_path: Path, **settings: Any) -> DPOConfig:
    return DPOConfig(
        model_name_or_path=str(POLICY),
        output_dir=str(tmp_path / "run"),
        global_batch_size=8,
        learning_rate=1e-3,
        logging_steps=1,
        num_samples=0,
        reference_cache="memory",
        save_strategy="no",
        **settings,
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in write_pairs(path).read_text().splitlines()]


def test_a_users_callback_sees_every_event(tmp_path: Path) -> None:
    diary = _Diary()
    rows = _rows(tmp_path / "pairs.jsonl")
    trainer = DPOTrainer(args=_config(tmp_path, max_steps=2), train_dataset=rows, callbacks=[diary])
    trainer.train()
    trainer.close()
    step = ["on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end"]
    assert diary.events == ["on_init_end", "on_train_begin", "on_epoch_begin", *step, *step, "on_train_end"]
    assert len(diary.losses) == 2


def test_early_stopping_stops_when_the_metric_gets_worse(tmp_path: Path) -> None:
    rows = _rows(tmp_path / "pairs.jsonl")
    config = _config(
        tmp_path,
        num_train_epochs=20,
        eval_steps=1,
        metric_for_best_model="eval_rewards/margins",
        greater_is_better=False,
        load_best_model_at_end=True,
    )
    trainer = DPOTrainer(
        args=config, train_dataset=rows, eval_dataset=rows, callbacks=[EarlyStoppingCallback(early_stopping_patience=2)]
    )
    output = trainer.train()
    trainer.close()
    assert output.global_step < 60


def test_trls_constructor_and_methods_work(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(POLICY)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    rows = _rows(tmp_path / "pairs.jsonl")
    trainer = DPOTrainer(
        model=model,
        ref_model=None,
        args=_config(tmp_path, max_steps=2),
        train_dataset=rows,
        eval_dataset=rows[:4],
        processing_class=tokenizer,
    )
    output = trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model(tmp_path / "saved")
    trainer.close()
    assert output.global_step == 2
    assert metrics["eval_rewards/accuracies"] >= 0
    saved, trained = load_file(tmp_path / "saved" / "model.safetensors"), trainer.model.state_dict()
    assert all(torch.equal(saved[name], trained[name]) for name in saved)


def test_samples_before_and_after_are_kept(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--num_samples", 2, "--sample_max_new_tokens", 4))
    records = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [(record["phase"], record["step"]) for record in records] == [("before", 0)] * 2 + [("after", 1)] * 2
