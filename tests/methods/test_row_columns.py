"""Columns of rows: weights, margins, label smoothing, token weights and spans, and the reference's own scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from builders import build_groups, relative_difference
from burnish.data.groups import PromptGroup
from burnish.data.prepare import prepare_groups
from burnish.data.settings import DataSettings
from burnish.data.sources import rows_of
from burnish.demo import demo_paths
from burnish.errors import DataError
from jobs import job, write_pairs
from methods.test_objectives import build_passes, one_step
from runs import read_metrics, run_burnish

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen2"
PAIRS = json.loads((GOLDEN / "pairs.json").read_text())


def _update(settings: dict[str, Any], groups: list[PromptGroup]) -> tuple[torch.Tensor, dict[str, float]]:
    return one_step(build_passes({"loss_type": ["sigmoid"], **settings}, 110), groups)


def _with_weights(group: PromptGroup, weigh: Callable[[int], np.ndarray]) -> PromptGroup:
    return replace(group, token_weights=tuple(weigh(len(ids)).astype(np.float32) for ids in group.completion_ids))


def test_a_rows_label_smoothing_replaces_the_setting() -> None:
    groups = build_groups(1)
    rows = [replace(group, label_smoothing=0.2) for group in groups]
    assert torch.equal(_update({"label_smoothing": 0.2}, groups)[0], _update({"label_smoothing": 0.4}, rows)[0])
    mixed = [replace(group, label_smoothing=0.2 if n % 2 else None) for n, group in enumerate(groups)]
    smooth, plain = _update({"label_smoothing": 0.2}, groups[1::2])[1], _update({}, groups[0::2])[1]
    assert _update({}, mixed)[1]["loss"] == pytest.approx((smooth["loss"] + plain["loss"]) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", [["sigmoid"], ["ipo"], ["sigmoid", "sft"], ["simpo"]], ids=str)
def test_a_token_of_weight_0_is_one_that_does_not_count(loss: list[str]) -> None:
    groups = [replace(group) for group in build_groups(2) if min(map(len, group.completion_ids)) > 2]
    masks = [tuple(np.arange(len(ids)) != 1 for ids in group.completion_ids) for group in groups]
    masked = [replace(group, completion_mask=mask) for group, mask in zip(groups, masks, strict=True)]
    weighted = [
        replace(group, token_weights=tuple(part.astype(np.float32) for part in mask))
        for group, mask in zip(groups, masks, strict=True)
    ]
    settings = {"loss_type": loss}
    (expected, metrics), (gradient, others) = _update(settings, masked), _update(settings, weighted)
    assert relative_difference(gradient, expected) < 1e-5
    assert others["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    assert others["logps/chosen"] == pytest.approx(metrics["logps/chosen"], rel=1e-5)


def test_tokens_of_weight_2_double_the_log_ratio() -> None:
    groups = build_groups(2)
    doubled = [_with_weights(group, lambda size: np.full(size, 2.0)) for group in groups]
    doubled_beta, _ = _update({"beta": 0.2}, groups)
    assert relative_difference(_update({"beta": 0.1}, doubled)[0], doubled_beta) < 1e-5


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("column", "loss", "value", "says"),
    [
        ("margin", "hinge", 1.0, "margin is used by sigmoid"),
        ("label_smoothing", "hinge", 0.1, "label_smoothing is used by sigmoid"),
        ("weight", "aot", 2.0, "cannot honour the rows' weight"),
        ("margin", "aot", 1.0, "cannot honour the rows' margin"),
        ("label_smoothing", "sigmoid", 0.5, "from 0.5 on the flipped labels win"),
        ("chosen_token_weights", "sigmoid", [1.0], "chosen_token_weights has 1 entries for"),
        ("chosen_token_weights", "sigmoid", "x", "not a list"),
        ("chosen_spans", "sigmoid", [[0, 1, 2.0]], "counts characters, and the row gives token ids"),
        ("ref_chosen_logps", "sigmoid", -1.0, "ref_rejected_logps is missing"),
    ],
)
def test_a_column_that_cannot_be_honoured_is_refused(
    column: str, loss: str, value: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl", count=8, **{column: value})
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--loss_type", loss), expect=2)
    assert says in capsys.readouterr().err


def test_odpo_wants_a_margin_in_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [dict(pair, margin=0.5) for pair in PAIRS]
    words = ["--max_steps", 1, "--loss_type", "odpo"]
    run_burnish(*job(_write(tmp_path / "all.jsonl", rows), tmp_path / "run", *words))
    del rows[3]["margin"]
    run_burnish(*job(_write(tmp_path / "some.jsonl", rows), tmp_path / "other", *words), expect=2)
    assert "odpo needs a margin in every row" in capsys.readouterr().err


ANSWER = "The capital of France is Paris."
SPAN = (ANSWER.index("Paris"), len(ANSWER) - 1)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "Q: where? A:", "chosen": " " + ANSWER, "rejected": " no"},
    "conversation": {
        "prompt": [{"role": "user", "content": "Where is Paris?"}],
        "chosen": [{"role": "assistant", "content": ANSWER}],
        "rejected": [{"role": "assistant", "content": "no"}],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_span_of_characters_weighs_the_tokens_that_reach_into_it(form: str, tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(demo_paths().model)
    start, end = (place + (form == "plain") for place in SPAN)
    rows = rows_of([{**FORMS[form], "chosen_spans": [[start, end, 0.25]]}])
    (group,) = prepare_groups(rows, tokenizer, DataSettings(), cache_dir=tmp_path).groups
    assert group.token_weights is not None
    weights, ids = group.token_weights[0], group.completion_ids[0]
    assert set(weights.tolist()) == {0.25, 1.0}
    assert "Paris" in tokenizer.decode(ids[weights == 0.25])
    assert "France" not in tokenizer.decode(ids[weights == 0.25])
    assert "France" in tokenizer.decode(ids[weights == 1])
    assert group.token_weights[1].tolist() == [1.0] * len(group.completion_ids[1])


def test_a_span_beyond_the_completion_is_refused(tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(demo_paths().model)
    rows = rows_of([{**FORMS["plain"], "chosen_spans": [[0, 999, 1.0]]}])
    with pytest.raises(DataError, match="ends at 999, and the completion has"):
        prepare_groups(rows, tokenizer, DataSettings(), cache_dir=tmp_path)


def _reference_logps(pair: dict[str, Any], model: Any) -> dict[str, float]:
    found = {}
    for side in ("chosen", "rejected"):
        ids = torch.tensor(pair["prompt_ids"] + pair[f"{side}_ids"])
        start = len(pair["prompt_ids"])
        with torch.no_grad():
            logps = model(input_ids=ids[None]).logits[0, start - 1 : -1].log_softmax(-1)
        found[f"ref_{side}_logps"] = float(logps.gather(1, ids[start:, None]).sum())
    return found


def test_the_references_scores_in_the_rows_load_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(GOLDEN / "reference", dtype=torch.float32).eval()
    rows = [pair | _reference_logps(pair, model) for pair in PAIRS]
    words = ["--max_steps", 1, "--loss_type", "sigmoid", "ipo"]
    live = job(_write(tmp_path / "live.jsonl", PAIRS), tmp_path / "live", *words)
    run_burnish(*live, "--ref_model_name_or_path", GOLDEN / "reference")
    monkeypatch.setattr("burnish.methods.session.build_reference", None)
    run_burnish(*job(_write(tmp_path / "given.jsonl", rows), tmp_path / "given", *words))
    expected, record = read_metrics(tmp_path / "live")[0], read_metrics(tmp_path / "given")[0]
    for name in ("loss", "grad_norm", "rewards/chosen", "rewards/margins"):
        assert record[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


def test_scores_for_some_rows_only_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [dict(pair, ref_chosen_logps=-1.0, ref_rejected_logps=-2.0) for pair in PAIRS]
    data = _write(tmp_path / "rows.jsonl", [*rows[:4], *PAIRS[4:]])
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1), expect=2)
    assert "give them to all, or to none" in capsys.readouterr().err
    data = _write(tmp_path / "all.jsonl", rows)
    run_burnish(*job(data, tmp_path / "run", "--max_steps", 1, "--ld_alpha", 0.5), expect=2)
    assert "ld_alpha needs a reference model" in capsys.readouterr().err


def test_a_precomputed_reference_says_what_the_live_one_says(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    held_out = write_pairs(tmp_path / "held-out.jsonl", seed=1, count=8)
    words = ["--num_train_epochs", 2, "--eval_dataset_name", held_out, "--eval_steps", 2]
    run_burnish(*job(data, tmp_path / "live", *words))
    run_burnish(*job(data, tmp_path / "before", *words, "--precompute_ref_log_probs"))
    times = ("runtime", "per_second", "seconds")
    for record, expected in zip(read_metrics(tmp_path / "before"), read_metrics(tmp_path / "live"), strict=True):
        assert {name: value for name, value in record.items() if not name.endswith(times)} == {
            name: value for name, value in expected.items() if not name.endswith(times)
        }
