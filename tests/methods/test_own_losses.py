"""A user's own loss: the documents' example as it stands there, by name and as a function."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from burnish import DPOConfig
from burnish.methods.preference import DPOTrainer
from burnish.objectives.scores import PairScores
from jobs import GOLDEN, POLICY, job, write_pairs
from runs import read_metrics, run_burnish

DOCS = Path(__file__).parents[2] / "docs"


def _example(language: str) -> str:
    page = (DOCS / language / "objectives.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return block


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_documents_example_trains(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = _example(language)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    Path("my_losses.py").write_text(code)
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 2, "--loss_type", "my_losses:gap"))
    first, second, _ = read_metrics(tmp_path / "run")
    assert first["loss"] == pytest.approx(1.313262, rel=1e-5)  # softplus(1), since no margin differs at the start
    assert second["loss"] < first["loss"]


def plain(scores: PairScores, *, beta: float) -> Tensor:
    """Without a reference: the raw preference, as a hinge."""
    return (1 - beta * (scores.chosen_logps - scores.rejected_logps)).clamp(min=0)


plain.needs_reference = False  # pyright: ignore[reportFunctionMemberAccess]


def centered(scores: PairScores, *, beta: float) -> Tensor:
    """How far each pair's margin is from the mean of the step's."""
    margin = beta * (scores.chosen_logratio - scores.rejected_logratio)
    return (1 + margin.mean() - margin).square()


centered.needs_step_scores = True  # pyright: ignore[reportFunctionMemberAccess]


def test_a_function_that_couples_the_step_sees_all_its_pairs_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    data = write_pairs(tmp_path / "pairs.jsonl", count=16)
    words = ["--loss_type", "test_own_losses:centered", "--ref_model_name_or_path", GOLDEN / "reference"]
    words += ["--max_steps", 3, "--global_batch_size", 8, "--beta", 0.5]
    runs = []
    for name, tokens in (("whole", 100_000), ("cut", 40)):
        run_burnish(*job(data, tmp_path / name, *words, "--max_tokens_per_micro_batch", tokens))
        runs.append([record["loss"] for record in read_metrics(tmp_path / name) if record["kind"] == "train"])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert runs[0][0] > 1.01  # the variance of the margins: a pair alone would give exactly 1


def test_the_documents_command_with_two_terms_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)
    Path("my_losses.py").write_text(_example("en"))
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    words = ["--loss_type", "my_losses:gap", "sft", "--loss_weights", 1.0, 0.1, "--max_steps", 1]
    run_burnish(*job(data, tmp_path / "run", *words))
    first = read_metrics(tmp_path / "run")[0]
    assert first["loss/gap"] == pytest.approx(1.313262, rel=1e-5)
    assert first["loss"] == pytest.approx(first["loss/gap"] + 0.1 * first["loss/sft"], rel=1e-5)


def test_a_function_trains_as_a_name_does_and_loads_no_reference_where_it_says_so(tmp_path: Path) -> None:
    functions: list[Any] = [plain]
    config = DPOConfig(
        model_name_or_path=str(POLICY),
        dataset_name=str(write_pairs(tmp_path / "pairs.jsonl")),
        output_dir=str(tmp_path / "run"),
        loss_type=functions,
        max_steps=1,
        num_samples=0,
        save_strategy="no",
    )
    assert config.loss_type[0].endswith(":plain")
    trainer = DPOTrainer(args=config)
    assert trainer.session.reference is None
    assert "none: the objective does not use one" in "\n".join(trainer.plan().lines())
    trainer.train()
    trainer.close()


@pytest.mark.parametrize(
    ("code", "name", "says"),
    [
        ("def f(scores): return scores.chosen_logps.mean()", "f", "must return one loss a pair"),
        ("f = 3", "f", "has no function f"),
        ("", "missing", "has no function missing"),
        ("import nowhere_to_be_found", "f", "cannot import wrong_losses"),
    ],
)
def test_what_is_no_loss_is_said_in_one_line(
    code: str, name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_losses", raising=False)
    Path("wrong_losses.py").write_text(code + "\n")
    data = write_pairs(tmp_path / "pairs.jsonl", count=8)
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--loss_type", f"wrong_losses:{name}"), expect=2)
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
