"""Ranked lists: k completions of a prompt, of which a pair is the smallest."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import build_groups, relative_difference
from burnish.data.groups import PromptGroup
from burnish.demo import demo_paths
from jobs import job
from methods.test_objectives import build_passes, one_step
from runs import read_metrics, run_burnish

LISTS = ["plackett_luce", "softmax", "all_pairs", "hinge", "ipo", "orpo"]
SAME_UPDATE = 1e-4
RANKINGS = {2: (1, 0), 3: (2, 0, 1), 4: (3, 1, 0, 2)}


def _lists(seed: int = 5) -> list[PromptGroup]:
    """Lists of two to four completions in any order."""
    groups = [group for k in RANKINGS for group in build_groups(seed + k, count=3, k=k)]
    return [
        replace(group, ranking=RANKINGS[group.num_completions], weight=0.5 + n / 4) for n, group in enumerate(groups)
    ]


@pytest.mark.parametrize("loss", LISTS)
def test_a_step_of_lists_is_one_update_however_it_is_cut(loss: str) -> None:
    settings, groups = {"loss_type": [loss]}, _lists()
    results = [one_step(build_passes(settings, max_tokens), groups) for max_tokens in (100_000, 120, 1)]
    (gradient, metrics), *others = results
    assert gradient.norm() > 1e-3
    for other, other_metrics in others:
        assert relative_difference(other, gradient) < SAME_UPDATE
        assert other_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", ["plackett_luce", "softmax", "all_pairs"])
def test_a_list_of_two_is_a_pair(loss: str) -> None:
    pairs = build_groups(6)
    turned = [
        replace(
            group,
            completion_ids=group.completion_ids[::-1],
            completion_mask=group.completion_mask[::-1],
            ranking=(1, 0),
        )
        for group in pairs
    ]
    expected, metrics = one_step(build_passes({"loss_type": ["sigmoid"]}, 110), pairs)
    for groups in (pairs, turned):
        gradient, others = one_step(build_passes({"loss_type": [loss]}, 110), groups)
        assert relative_difference(gradient, expected) < 1e-5
        assert {name: others[name] for name in metrics} == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_all_pairs_is_any_paired_loss_over_the_ranked_pairs() -> None:
    """A list of three without weights is the mean of its three pairs; a tie is skipped."""
    (group,) = build_groups(7, count=1, k=3)
    couples = [(0, 1), (0, 2), (1, 2)]
    for ranking, members in (((0, 1, 2), couples), ((0, 1, 1), couples[:2])):
        pairs = [
            replace(
                group,
                completion_ids=tuple(group.completion_ids[n] for n in pair),
                completion_mask=tuple(group.completion_mask[n] for n in pair),
            )
            for pair in members
        ]
        for loss in ("hinge", "ipo", "sigmoid"):
            expected, metrics = one_step(build_passes({"loss_type": [loss]}, 1000), pairs)
            gradient, others = one_step(build_passes({"loss_type": [loss]}, 1000), [replace(group, ranking=ranking)])
            assert relative_difference(gradient, expected) < 1e-5
            for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen"):
                assert others[name] == pytest.approx(metrics[name], rel=1e-5), name


MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def _graded(shared: Path, count: int) -> list[dict[str, Any]]:
    """Questions of gsm8k with four graded solutions, right and wrong ones among them."""
    rows: list[dict[str, Any]] = []
    with gzip.open(shared / "data" / "gsm8k" / "example_model_solutions.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            solutions = [row[name]["solution"] for name in MODELS]
            scores = [float(row[name]["is_correct"]) for name in MODELS]
            if len(set(scores)) == 2 and all(solutions):
                rows.append(
                    {
                        "prompt": [{"role": "user", "content": row["question"]}],
                        "completions": solutions,
                        "scores": scores,
                    }
                )
            if len(rows) == count:
                break
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _run(data: Path, output: Path, *words: Any, expect: int = 0) -> list[dict[str, Any]]:
    model = ["--model_name_or_path", demo_paths().model, "--max_length", 600]
    run_burnish(*job(data, output, *model, "--max_steps", 2, *words), expect=expect)
    return [] if expect else read_metrics(output)


def test_graded_solutions_of_gsm8k_train_as_lists(shared_dir: Path, tmp_path: Path) -> None:
    rows = _graded(shared_dir, 16)
    first, second, _ = _run(_write(tmp_path / "graded.jsonl", rows), tmp_path / "pairs", "--loss_type", "all_pairs")
    assert (first["rewards/margins"], first["rewards/accuracies"]) == (0, 0)
    assert second["rewards/margins"] != 0
    # The prompt is computed once for four solutions.
    assert first["num_computed_tokens"] < 0.75 * first["num_tokens"]
    one_right = [row for row in rows if sum(row["scores"]) == 1]
    assert len(one_right) > 2
    records = _run(_write(tmp_path / "one.jsonl", one_right), tmp_path / "softmax", "--loss_type", "softmax")
    assert records[0]["loss"] == pytest.approx(float(torch.log(torch.tensor(4.0))), rel=1e-5)


def test_a_tie_that_the_objective_does_not_admit_is_named_with_its_row(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _write(tmp_path / "graded.jsonl", _graded(shared_dir, 3))
    _run(data, tmp_path / "run", "--loss_type", "plackett_luce", expect=2)
    assert "graded.jsonl, row 1: tied ranks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "words", "says"),
    [
        ({}, ["--loss_type", "aot"], "an objective that couples the step belongs to pairs"),
        ({}, ["--ld_alpha", "0.5"], "ld_alpha belongs to pairs"),
        ({"margin": 1.0}, [], "margin belongs to pairs"),
        ({"scores": [1, 2]}, [], "scores has 2 entries for 3 completions"),
        ({"scores": [1, 2, 3], "ranking": [0, 1, 2]}, [], "ranking and scores both order"),
    ],
)
def test_what_lists_cannot_have_is_refused(
    extra: dict[str, Any], words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "Count:", "completions": [" one two", " one", " two"], **extra} for _ in range(4)]
    _run(_write(tmp_path / "lists.jsonl", rows), tmp_path / "run", *words, expect=2)
    assert says in capsys.readouterr().err


def test_a_list_whose_completions_are_all_alike_in_rank_is_dropped_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "Count:", "completions": [" one two", " one", " two"], "scores": scores} for scores in
            ([1, 1, 1], [3, 1, 2], [1, 2, 2])]  # fmt: skip
    _run(_write(tmp_path / "lists.jsonl", rows), tmp_path / "run", "--loss_type", "all_pairs")
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())["train"]
    assert "tie" in json.dumps(report)
