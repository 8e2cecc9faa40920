"""The benchmark against TRL: what it counts is counted right, and a speed-up that changes the update cannot pass."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import compare
import long_prompts
import turns
from burnish.demo import demo_paths
from burnish.methods.dpo import DPOConfig
from burnish_turn import settings
from compare import MARKERS
from matrix_products import ModelShape, PairLengths, measure_rate, useful_operations
from pages import write_between
from parts import FULL, PARTS, SIDES, make_job
from report import rates_in_words
from turns import Side, TurnError, take_turn

SHAPE = ModelShape(
    hidden=4, intermediate=8, layers=3, heads=2, key_value_heads=1, head_size=2, vocabulary=10
)  # fmt: skip
PART = {part.name: part for part in PARTS}


def test_useful_operations_are_those_of_a_count_by_hand() -> None:
    pair = PairLengths(3, (2, 4))
    # Which earlier token of its own sequence each token sees, itself included.
    seen = [1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert pair.visible == sum(seen)
    weights = 3 * (4 * 4 + 4 * 2 + 4 * 2 + 4 * 4 + 3 * 4 * 8)
    assert (SHAPE.body_parameters, SHAPE.head_parameters) == (weights, 40)
    once = 2 * weights * 9 + 2 * 40 * 6 + 4 * 4 * sum(seen) * 3
    assert useful_operations(SHAPE, [pair, pair], reference_passes=1) == 2 * 4 * once
    assert useful_operations(SHAPE, [pair], reference_passes=0) == 3 * once


def test_the_shape_is_that_of_the_models_weights() -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(demo_paths().model)
    shape = ModelShape.read(demo_paths().model)
    linear = {name: weight for name, weight in model.named_parameters() if name.endswith("proj.weight")}
    assert shape.body_parameters == sum(weight.numel() for weight in linear.values())
    assert shape.head_parameters == model.lm_head.weight.numel()


def test_the_rate_of_matrix_products_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    assert 1e6 < measure_rate(SHAPE, precision="fp32", threads=1) < 1e13


@pytest.mark.parametrize("part", [part for part in PARTS if part.kind == "train"], ids=lambda part: part.name)
def test_both_sides_are_told_the_same_and_burnish_takes_it(part: Any, tmp_path: Path) -> None:
    names = {"model": "m", "data": "d.jsonl", "eval_data": "e.jsonl" if part.evaluate else None}
    jobs = [make_job(part, side, FULL, **names) for side in ("TRL", "burnish")]
    assert jobs[0] == jobs[1]
    config = DPOConfig(**settings(jobs[1], str(tmp_path)))
    pairs = config.per_device_train_batch_size * config.gradient_accumulation_steps
    assert (pairs, config.max_steps, config.precision) == (FULL.pairs_of(part), part.epochs, part.precision)


def _conversation(*texts: str, chosen: str = "Yes. It is so.", rejected: str = "No.") -> dict[str, Any]:
    turns_of = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"conversations": turns_of, "chosen": {"from": "gpt", "value": chosen}, "rejected": {"value": rejected}}


def test_long_prompts_come_from_conversations_of_several_turns() -> None:
    long = "First sentence here. " * 20
    rows = [
        _conversation("Hi."),
        _conversation("Hi.", "Hello.", "Why?", chosen=long),
        _conversation(long, "Well.", long),
    ]
    (pair,) = long_prompts.pairs(rows)
    assert [turn["role"] for turn in pair["prompt"]] == ["user", "assistant", "user"]
    assert all(len(turn["content"]) <= long_prompts.TURN for turn in pair["prompt"])
    assert pair["prompt"][0]["content"].endswith("here.")
    assert pair["chosen"] == [{"role": "assistant", "content": "Yes. It is so."}]


def test_long_prompts_are_at_least_twice_as_long_as_completions(shared_dir: Path, tmp_path: Path) -> None:
    long_prompts.main(shared_dir / "data/llamafactory/dpo_en_demo.json", tmp_path / "long.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "long.jsonl").read_text("utf-8").splitlines()]
    prompt = sum(len(turn["content"]) for row in rows for turn in row["prompt"])
    completion = sum(len(row[side][0]["content"]) for row in rows for side in ("chosen", "rejected"))
    assert len(rows) > 40
    assert prompt >= 2 * completion / 2


SCRIPT = """
import json, pathlib, sys
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
calls = pathlib.Path(job["calls"])
calls.write_text(calls.read_text() + "x")
if job.get("fails"):
    sys.exit("no memory left")
pathlib.Path(sys.argv[2]).write_text(json.dumps({"value": job["value"]}))
"""


@pytest.fixture
def counting(tmp_path: Path) -> Side:
    """A side whose turns count themselves."""
    script = tmp_path / "turn.py"
    script.write_text(SCRIPT)
    (tmp_path / "calls").write_text("")
    return Side("counting", sys.executable, script, (script,))


def test_a_finished_turn_is_taken_once_and_again_when_job_rows_or_code_change(counting: Side, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    job = {"threads": 1, "value": 7, "calls": str(tmp_path / "calls"), "data": str(rows)}
    record = tmp_path / "records" / "one.json"
    take = lambda: take_turn(counting, job, record)  # noqa: E731
    assert [take()[1], take()[1]] == [False, True]
    assert take()[0]["value"] == 7
    job["value"] = 8
    assert (take()[0]["value"], take()[1]) == (8, True)
    rows.write_text("{}\n{}\n")
    assert take()[1] is False
    counting.script.write_text(SCRIPT + "\n# changed")
    assert take()[1] is False
    assert (tmp_path / "calls").read_text() == "xxxx"


def test_a_turn_that_fails_leaves_no_record_and_says_why(counting: Side, tmp_path: Path) -> None:
    job = {"threads": 1, "calls": str(tmp_path / "calls"), "fails": True}
    with pytest.raises(TurnError, match="no memory left"):
        take_turn(counting, job, tmp_path / "records" / "one.json")
    assert list((tmp_path / "records").iterdir()) == []


STEP = {"loss": 0.6931, "grad_norm": 43.7, "logps/chosen": -241.3, "logps/rejected": -219.4}
EVAL = {"eval_loss": 0.6931, "eval_logps/chosen": -200.0, "eval_logps/rejected": -210.0}


def _training(seconds: float, memory: float) -> dict[str, Any]:
    return {
        "steps": [STEP | {"seconds": seconds}, STEP | {"seconds": seconds / 2}],
        "evals": [EVAL | {"eval_runtime": seconds}, EVAL | {"eval_runtime": seconds / 4}],
        "startup_seconds": 9.0,
        "peak_rss_bytes": memory * 2**30,
    }


def _measured(side: str, round_: int) -> dict[str, Any]:
    rate = {"operations_per_second": 1e11, "lengths": [[3, [2, 4]]]}
    by_side = {"TRL": _training(80.0 * round_, 10), "burnish": _training(16.0, 4), "rate": rate}
    prepare = {"pairs": 500, "seconds": 1.0 if side == "TRL" else 0.1, "ids": "abc"}
    return by_side.get(side, {}) | prepare | {"versions": {"torch": "2.13"}, "wall_seconds": 1.0}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the comparison on records of three rounds, with a value of burnish's changed; the exit code and report."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": [{"role": "user", "content": str(n)}]}) + "\n" for n in range(40)))

    def run(part: str, *path: Any, value: Any = None) -> tuple[int, str, dict[str, Any]]:
        def measured(side: Side, _: Any, record: Path) -> tuple[dict[str, Any], bool]:
            result = json.loads(json.dumps(_measured(side.name, int(re.findall(r"-(\d)-", record.stem)[-1]))))
            if side.name == "burnish" and path:
                place = result
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = value
            return result, True

        monkeypatch.setattr(compare, "take_turn", measured)
        monkeypatch.setattr(turns, "sides", dict)
        words = ["--part", part, "--model", str(demo_paths().model), "--gsm8k", str(rows), "--long", str(rows)]
        monkeypatch.setattr(sys, "argv", ["compare.py", *words, "--pairs", "8", "--work", str(tmp_path / "work")])
        monkeypatch.setattr(compare, "sides", lambda _: {name: Side(name, "", rows, ()) for name in SIDES_NAMED})
        code = compare.main()
        work = tmp_path / "work"
        return code, (work / "report.md").read_text(), json.loads((work / "report.json").read_text())

    return run


SIDES_NAMED = {name for sides in SIDES.values() for name in sides}


def test_figures_are_medians_a_pair_and_ratios_of_medians(bench: Any) -> None:
    code, text, report = bench("fp32-gsm8k")
    figures = {figure["name"]: figure for figure in report["figures"]}
    first = figures["first epoch, fp32"]
    assert (code, report["same"]) == (0, True)
    assert (first["trl_turns"], first["trl"], first["burnish"]) == ([10.0, 20.0, 30.0], 20.0, 2.0)
    assert (first["better"], first["goal"], first["reached"]) == (10.0, 2.5, True)
    assert figures["later epochs, fp32"]["trl"] == 10.0
    assert figures["evaluation, repeated"]["burnish"] == 0.5
    assert (figures["peak memory, fp32"]["better"], figures["peak memory, fp32"]["reached"]) == (0.4, True)
    assert "| first epoch, fp32 | gsm8k | 20 s a pair | 2 s a pair | 10.00 × | ≥ 2.5 ✓ |" in text
    assert "The same work: all 42 values" in text


def test_the_rate_of_matrix_products_is_the_median_of_all_rounds() -> None:
    measured: list[dict[str, Any]] = [{"operations_per_second": rate * 1e9} for rate in (206, 353, 352)]
    assert rates_in_words({"bf16-long": {"rate": measured}, "prepare-long": {}}) == "bf16-long 352"
    assert rates_in_words({"prepare-long": {}}) == "not measured"


def test_preparation_counts_pairs_a_second(bench: Any) -> None:
    code, text, report = bench("prepare-long")
    assert code == 0
    assert [figure["better"] for figure in report["figures"]] == [10.0, 10.0]
    assert "| preparation with fastokens | long prompts | 500 pairs/s | 5,000 pairs/s | 10.00 × | ≥ 10 ✓ |" in text


WRONG = [
    ("fp32-gsm8k", ("steps", 0, "grad_norm"), 43.72),
    ("fp32-gsm8k", ("steps", 1, "loss"), 0.6933),
    ("fp32-gsm8k", ("steps", 1, "logps/chosen"), -241.31),
    ("fp32-gsm8k", ("evals", 1, "eval_logps/rejected"), -210.01),
    ("fp32-gsm8k", ("evals", 0, "eval_loss"), math.nan),
    ("bf16-gsm8k", ("steps", 0, "grad_norm"), 45.0),
    ("prepare-long", ("ids",), "abd"),
    ("prepare-long", ("pairs",), 499),
]


@pytest.mark.parametrize(("part", "path", "value"), WRONG)
def test_a_speed_up_that_changes_the_work_cannot_pass(part: str, path: Any, value: Any, bench: Any) -> None:
    code, text, report = bench(part, *path, value=value)
    assert (code, report["same"]) == (1, False)
    assert "**NOT THE SAME WORK**" in text
    assert "**DIFFERS**" in text
    assert "✓" not in text


def test_the_table_goes_between_the_pages_markers_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
    write_between(page, MARKERS, "new")
    assert page.read_text() == "before\n<!-- benchmark -->\nnew\n<!-- /benchmark -->\nafter\n"
    page.write_text("no markers")
    with pytest.raises(SystemExit, match="has no <!-- benchmark -->"):
        write_between(page, MARKERS, "new")


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--pairs", "3"], "no multiple"), (["--rounds", "0"], "at least 1"), (["--long", "gone.jsonl"], "is not there")],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(demo_paths().model)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--model", model, "--gsm8k", __file__, *words])
    with pytest.raises(SystemExit, match=message):
        compare.main()


@pytest.mark.slow  # three processes that import torch: 30 s
def test_a_turn_of_burnish_gives_what_the_comparison_reads(shared_dir: Path, tmp_path: Path) -> None:
    rows = shared_dir / "data/gsm8k/pairs-train.jsonl"
    compare.cut_rows(rows, tmp_path / "rows.jsonl", first=0, count=2)
    names = {"model": str(demo_paths().model), "data": str(tmp_path / "rows.jsonl")}
    told = {side: make_job(PART["fp32-gsm8k"], side, FULL, **names, eval_data=names["data"]) for side in SIDES["train"]}
    jobs = {side: job | {"pairs": 2, "threads": 1} for side, job in told.items()}
    found = turns.sides("unused")
    taken = {side: take_turn(found[side], jobs[side], tmp_path / side)[0] for side in ("burnish", "rate")}
    ours = taken["burnish"]
    assert (len(ours["steps"]), len(ours["evals"])) == (2, 2)
    assert ours["steps"][0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert 0 < ours["steps"][1]["seconds"] < 60 < ours["peak_rss_bytes"]
    assert len(taken["rate"]["lengths"]) == 2
