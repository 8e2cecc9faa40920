"""Several sets to evaluate on, each under its own name, as transformers names their metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from burnish import DPOConfig, DPOTrainer
from burnish.cli.arguments import parse_arguments
from burnish.errors import ConfigError
from jobs import POLICY, job, write_pairs
from runs import read_metrics, run_burnish


def _evaluations(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run) if record["kind"] == "eval"]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {name: write_pairs(tmp_path / f"{name}.jsonl", seed=n) for n, name in enumerate(("train", "math", "chat"))}


def test_each_set_has_the_metrics_that_it_has_alone(files: dict[str, Path], tmp_path: Path) -> None:
    words = ["--max_steps", 2, "--eval_steps", 1]
    both = [f"math={files['math']}", f"chat={files['chat']}"]
    run_burnish(*job(files["train"], tmp_path / "both", *words, "--eval_data", *both))
    found = _evaluations(tmp_path / "both")
    assert [sorted(name for name in record if name.endswith("_loss")) for record in found] == [
        ["eval_math_loss"], ["eval_chat_loss"], ["eval_math_loss"], ["eval_chat_loss"]
    ]  # fmt: skip
    for name, records in (("math", found[::2]), ("chat", found[1::2])):
        run_burnish(*job(files["train"], tmp_path / name, *words, "--eval_dataset_name", files[name]))
        for record, alone in zip(records, _evaluations(tmp_path / name), strict=True):
            renamed = {key.replace("eval_", f"eval_{name}_", 1): value for key, value in alone.items()}
            assert record.keys() == renamed.keys()
            for key in record:
                if "runtime" not in key and "per_second" not in key and key != "kind":
                    assert record[key] == pytest.approx(renamed[key], rel=1e-5, abs=1e-6), key
    report = json.loads((tmp_path / "both" / "data_report.json").read_text())
    assert list(report) == ["train", "eval_math", "eval_chat"]


def test_a_dict_of_rows_in_python_is_several_sets_and_the_best_is_one_of_their_metrics(
    files: dict[str, Path], tmp_path: Path
) -> None:
    config = DPOConfig(
        model_name_or_path=str(POLICY), output_dir=str(tmp_path / "run"), global_batch_size=8, max_steps=2,
        eval_steps=1, num_samples=0, learning_rate=1e-2, load_best_model_at_end=True, metric_for_best_model="chat_loss",
        reference_cache="memory",
    )  # fmt: skip
    sets = {name: _rows(files[name]) for name in ("math", "chat")}
    trainer = DPOTrainer(args=config, train_dataset=_rows(files["train"]), eval_dataset=sets)
    trainer.train()
    losses = [record["eval_chat_loss"] for record in _evaluations(tmp_path / "run") if "eval_chat_loss" in record]
    assert trainer.state.best_metric == min(losses)
    assert {"eval_math_loss", "eval_chat_rewards/margins"} <= set(trainer.evaluate())
    trainer.close()


def test_the_first_sets_loss_says_what_is_best_unless_told_otherwise(files: dict[str, Path], tmp_path: Path) -> None:
    both = ["--eval_data", f"math={files['math']}", "--eval_data", f"chat={files['chat']}"]
    run_burnish(*job(files["train"], tmp_path / "run", "--max_steps", 1, "--eval_steps", 1, *both))
    settings = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert settings["metric_for_best_model"] == "math_loss"
    assert settings["eval_data"] == {"math": str(files["math"]), "chat": str(files["chat"])}


def test_a_file_and_flags_write_the_same_mapping(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("eval_data:\n  math: a.jsonl\n  chat: b=c.jsonl\n")
    wanted = {"math": "a.jsonl", "chat": "b=c.jsonl"}
    for words in (
        ["--config", str(path)],
        ["--eval_data", "math=a.jsonl", "chat=b=c.jsonl"],
        ["--eval_data=math=a.jsonl", "--eval_data", "chat=b=c.jsonl"],
        ["--eval_data", "{math: a.jsonl, chat: b=c.jsonl}"],
    ):
        assert parse_arguments(words, DPOConfig).config.eval_data == wanted
    kwargs = parse_arguments(["--lr_scheduler_kwargs", "min_lr=1e-6"], DPOConfig).config.lr_scheduler_kwargs
    assert kwargs == {"min_lr": 1e-6}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--eval_data", "a.jsonl"], "--eval_data a.jsonl: must be NAME=VALUE"),
        (["--eval_data", "a/b=c.jsonl"], "'a/b' is no name for a set"),
        (["--eval_data", "a=b", "a=c"], "--eval_data a is given twice"),
        (["--eval_data", "a=b", "--eval_data", "a=c"], "--eval_data a is given twice"),
        (["--eval_data", "a=b", "--eval_dataset_name", "c"], "both say what to evaluate on"),
    ],
)
def test_what_is_no_mapping_of_names_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_arguments(words, DPOConfig)
    assert says in str(caught.value)


def test_a_set_that_is_missing_is_named(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--eval_data", f"math={files['math']}", "chat=./none.jsonl"]
    run_burnish(*job(files["train"], tmp_path / "run", *words), expect=2)
    assert "./none.jsonl" in capsys.readouterr().err
