"""Dirty, scarce and over-long rows go through a whole run: each is accounted for, and every loss stays finite."""

from __future__ import annotations

import gzip
import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from burnish.objectives.table import PAIRED
from jobs import POLICY, job, write_pairs
from row_builders import pair
from runs import read_metrics, run_burnish

CHATML = Path(__file__).parents[1] / "golden" / "trl_ids" / "chatml"
WORDS = ["yes", "no", "是", "不", "مرحبا", "🙂", "<b>bold</b>", "a\u2028b", "\ufffd", "tab\there", "x" * 50]


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with the tokenizer and chat template of `chatml`."""
    folder = tmp_path_factory.mktemp("models") / "chat"
    shutil.copytree(CHATML, folder)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = Qwen2Config(vocab_size=576, num_key_value_heads=2, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(folder))
    return folder


def _report(run: Path, split: str = "train") -> dict[str, Any]:
    return json.loads((run / "data_report.json").read_text())[split]


def _losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run) if record["kind"] == "train"]


DIRT: dict[str, Any] = {
    "bad_row": [
        "{broken",
        "[1]",
        "null",
        "7",
        '{"prompt": "a"}',
        pair(chosen=True),
        pair(rejected=3.5),
        pair(chosen={}),
    ],
    "empty_completion": [pair(chosen=""), pair(rejected=" \n"), pair(chosen="\u200b")],
    "identical_pair": [pair(chosen="x", rejected="x")],
    "overlong_prompt": [pair("long " * 400)],
}


@pytest.mark.parametrize("seed", [0, 1])
def test_every_generated_row_is_used_or_accounted_for(seed: int, chat_model: Path, tmp_path: Path) -> None:
    generator = random.Random(seed)
    rows: list[Any] = [
        pair(f"Question {n}: {generator.choice(WORDS)}", f"{n} {generator.choice(WORDS)}", f"not {n}")
        for n in range(30)
    ]
    expected: Counter[str] = Counter()
    for kind, examples in DIRT.items():
        for example in examples:
            rows.insert(generator.randrange(len(rows)), example)
            expected[kind] += 1
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "rows.jsonl").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    run = tmp_path / "run"
    words = ("--model_name_or_path", chat_model, "--on_bad_row", "skip", "--max_length", 512)
    run_burnish(*job(tmp_path / "rows.jsonl", run, *words))
    report = _report(run)
    assert report["rows_read"] == len(rows)
    assert {kind: report["counts"][kind] for kind in expected} == expected
    assert report["groups_used"] == 30
    rejected = [json.loads(line) for line in (run / "rejected_rows.jsonl").read_text().splitlines()]
    assert sorted(entry["row"] for entry in rejected) == [
        number for number, row in enumerate(rows, 1) if any(row is bad for bad in DIRT["bad_row"])
    ]
    assert all(map(math.isfinite, _losses(run)))


def test_pandalm_trains_as_it_is_once_its_bad_rows_are_skipped(
    shared_dir: Path, chat_model: Path, tmp_path: Path
) -> None:
    data = shared_dir / "data" / "pandalm" / "testset-v1.json"
    run = tmp_path / "run"
    words = ("--model_name_or_path", chat_model, "--max_steps", 1, "--max_length", 256)
    run_burnish(*job(data, run, *words), expect=2)
    assert not run.exists()
    run_burnish(*job(data, run, *words, "--on_bad_row", "skip"))
    report = _report(run)
    lost = sum(n for kind, n in report["counts"].items() if report["fates"][kind] in ("dropped", "rejected"))
    assert report["rows_read"] == 999 == report["groups_used"] + lost
    assert report["counts"]["bad_row"] == len((run / "rejected_rows.jsonl").read_text().splitlines()) == 6


def _long_pairs(path: Path, **columns: Any) -> Path:
    """Pairs whose prompts or completions leave 0, 1 or a few tokens under a max_length of 12."""
    generator = np.random.default_rng(0)
    ids = lambda length: generator.integers(3, 500, length).tolist()  # noqa: E731
    sizes = [(11, 5, 4), (12, 5, 4), (13, 1, 1), (40, 3, 3), (1, 40, 2), (1, 2, 40), (5, 3, 4), (10, 2, 9), (11, 1, 1)]
    rows = [{"prompt_ids": ids(p), "chosen_ids": ids(c), "rejected_ids": ids(r), **columns} for p, c, r in sizes * 2]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


NEEDS = {"exo_pair": ("--label_smoothing", 0.01)}


@pytest.mark.parametrize("loss", sorted(PAIRED))
def test_completions_cut_to_nothing_are_dropped_and_counted_whatever_the_loss(loss: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = _long_pairs(tmp_path / "pairs.jsonl", **({"margin": 1} if loss == "odpo" else {}))
    words = ["--max_length", 12, "--max_steps", 2, "--learning_rate", 1e-5, "--beta", 0.1, *NEEDS.get(loss, ())]
    run_burnish(*job(data, run, "--loss_type", loss, *words))
    report = _report(run)
    assert report["counts"]["overlong_prompt"] == 6
    assert report["counts"]["completion_cut"] == 8
    assert report["groups_used"] == 12
    assert len(_losses(run)) == 2
    assert all(map(math.isfinite, _losses(run)))


def test_an_empty_file_is_an_error_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("a.jsonl", ""), ("b.jsonl", "\n \n"), ("c.json", "[]"), ("d.csv", ""), ("e.csv", "prompt\n")):
        (tmp_path / name).write_text(text)
        run_burnish(*job(tmp_path / name, tmp_path / "run"), expect=2)
        error = capsys.readouterr().err
        assert name in error
        assert "no row is left to train on" in error
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rows", "batch", "steps"), [(1, 1, 3), (1, 8, 3), (3, 8, 3), (9, 8, 6)])
def test_fewer_rows_than_a_batch_make_a_clean_run(rows: int, batch: int, steps: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = write_pairs(tmp_path / "pairs.jsonl", count=rows)
    run_burnish(*job(data, run, "--global_batch_size", batch, "--num_train_epochs", 3))
    assert len(_losses(run)) == steps
    assert all(map(math.isfinite, _losses(run)))


def test_evaluation_rows_that_are_none_or_all_dropped_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    empty = tmp_path / "empty.jsonl"
    for row in ("", json.dumps({"prompt_ids": [3], "chosen_ids": [4], "rejected_ids": [4]}) + "\n"):
        empty.write_text(row)
        run = tmp_path / f"run{len(row)}"
        run_burnish(*job(data, run, "--eval_dataset_name", empty, "--max_steps", 1))
        assert f"{empty}: {1 if row else 0} row" in capsys.readouterr().err
        assert not [record for record in read_metrics(run) if record["kind"] == "eval"]
        run_burnish(*job(data, tmp_path / "no", "--eval_dataset_name", empty, "--eval_strategy", "steps"), expect=2)
        assert "there are no evaluation rows" in capsys.readouterr().err


def test_overlap_of_training_and_evaluation_rows_is_counted(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    run = tmp_path / "run"
    run_burnish(*job(data, run, "--eval_dataset_name", data, "--max_steps", 1, "--eval_steps", 1))
    assert _report(run, "eval")["counts"]["shared_prompt"] == 24


def test_a_template_that_changes_prompts_stops_the_run_with_the_cure(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(pair()) + "\n")
    thinking = tmp_path / "thinking.jinja"
    template = (chat_model / "chat_template.jinja").read_text()
    thinking.write_text(template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"))
    words = ["--model_name_or_path", chat_model, "--chat_template_path", thinking]
    run_burnish(*job(tmp_path / "rows.jsonl", tmp_path / "run", *words), expect=2)
    error = capsys.readouterr().err
    assert "before a completion than alone" in error
    assert "--chat_template_path" in error


def test_another_models_tokenizer_is_told_before_any_device_meets_its_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(POLICY, folder)
    shutil.copytree(CHATML, folder, dirs_exist_ok=True)
    (tmp_path / "rows.jsonl").write_text(json.dumps(pair("some more words", "more", "less")) + "\n")
    for words in (job(tmp_path / "rows.jsonl", tmp_path / "run"), ["check", tmp_path / "rows.jsonl"]):
        run_burnish(*words, "--model_name_or_path", folder, expect=2)
        captured = capsys.readouterr()
        told = " ".join((captured.out + captured.err).split())
        assert "the model embeds only 512" in told
        assert "the tokenizer is another model's" in told
    assert not (tmp_path / "run").exists()


BAD_LINES: dict[str, bytes] = {
    "a broken line": b'{"prompt": [',
    "no object": b"[1, 2]",
    "null": b"null",
    "a missing key": b'{"prompt": "a", "chosen": "b"}',
    "a null": b'{"prompt": "a", "chosen": "b", "rejected": null}',
    "a boolean completion": json.dumps(pair(chosen=True)).encode(),
    "a number for a completion": json.dumps(pair(rejected=3)).encode(),
    "invalid UTF-8": b'{"prompt": "\xff", "chosen": "a", "rejected": "b"}',
    "a lone surrogate": b'{"prompt": "a", "chosen": "\\ud83d", "rejected": "b"}',
}
ODD_TEXTS = ["a\0b", "a\u2028b", "a\ufffdb", "x" * 1_000_000, "<script>alert(1)</script>", "🙂👩‍👩‍👧", "مرحبا", "打磨"]


def _odd_file(path: Path, lines: dict[str, bytes]) -> Path:
    """Good rows with odd texts, a byte order mark, carriage returns, and bad lines at the end."""
    good = [json.dumps(pair(f"Q{n}", text, "no"), ensure_ascii=False).encode() for n, text in enumerate(ODD_TEXTS)]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*good, *lines.values()]) + b"\r\n")
    return path


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_stops_the_run_with_its_file_and_line_and_leaves_nothing(
    case: str, chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _odd_file(tmp_path / "rows.jsonl", {case: BAD_LINES[case]})
    run_burnish(*job(data, tmp_path / "run", "--model_name_or_path", chat_model), expect=2)
    error = capsys.readouterr().err
    assert f"rows.jsonl:{len(ODD_TEXTS) + 1}: " in error
    assert "--on_bad_row skip" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_every_bad_line_can_be_skipped_and_odd_texts_train(chat_model: Path, tmp_path: Path) -> None:
    data, run = _odd_file(tmp_path / "rows.jsonl", BAD_LINES), tmp_path / "run"
    words = ("--model_name_or_path", chat_model, "--on_bad_row", "skip", "--max_length", 64)
    run_burnish(*job(data, run, *words))
    report = _report(run)
    assert report["rows_read"] == len(ODD_TEXTS) + len(BAD_LINES)
    assert report["groups_used"] == len(ODD_TEXTS)
    assert report["counts"]["bad_row"] == len(BAD_LINES)
    rejected = [json.loads(line) for line in (run / "rejected_rows.jsonl").read_text().splitlines()]
    assert [entry["row"] for entry in rejected] == [len(ODD_TEXTS) + number for number in range(1, len(BAD_LINES) + 1)]
    assert all(map(math.isfinite, _losses(run)))


def test_a_compressed_file_that_breaks_off_is_told_and_its_whole_rows_train(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "rows.jsonl.gz", tmp_path / "run"
    rows = [json.dumps(pair(f"{n * 7919}", f"{n * 104729}", f"{n}")).encode() + b"\n" for n in range(60)]
    whole = gzip.compress(b"".join(rows))
    data.write_bytes(whole[: len(whole) // 2])
    words = ("--model_name_or_path", chat_model, "--max_steps", 1)
    run_burnish(*job(data, run, *words), expect=2)
    error = capsys.readouterr().err
    assert "rows.jsonl.gz:" in error
    assert "the compressed file breaks off" in error
    run_burnish(*job(data, run, *words, "--on_bad_row", "skip"))
    assert 0 < _report(run)["groups_used"] < 60


def test_repetitions_and_contradictions_are_counted_and_train(chat_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    rows = [pair("a", "b", "c"), pair("a", "b", "c"), pair("d", "e", "f"), pair("d", "f", "e"), pair("g", "h", "i")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_burnish(*job(tmp_path / "rows.jsonl", run, "--model_name_or_path", chat_model))
    report = _report(run)
    assert report["rows_read"] == report["groups_used"] == 5
    assert report["counts"]["duplicate_row"] == 1
    assert report["counts"]["contradictory_pair"] == 2
    assert all(map(math.isfinite, _losses(run)))


def test_rows_of_several_forms_are_each_read_as_what_they_are(chat_model: Path, tmp_path: Path) -> None:
    """The first row decides nothing for the others."""
    run = tmp_path / "run"
    talk = lambda *turns: [dict(zip(("role", "content"), turn, strict=True)) for turn in turns]  # noqa: E731
    rows: list[Any] = [
        pair("a", "b", "c"),
        {"prompt": "plain ", "chosen": "b", "rejected": "c"},
        {"chosen": talk(("user", "q"), ("assistant", "x")), "rejected": talk(("user", "q"), ("assistant", "y"))},
        {"prompt_ids": [5, 6], "chosen_ids": [7, 8], "rejected_ids": [9]},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_burnish(*job(tmp_path / "rows.jsonl", run, "--model_name_or_path", chat_model))
    assert _report(run)["groups_used"] == len(rows)
    assert all(map(math.isfinite, _losses(run)))


SYSTEM = {"role": "system", "content": "Be brief."}


def test_a_template_that_drops_the_system_turn_is_counted_row_by_row(chat_model: Path, tmp_path: Path) -> None:
    rows = [{**pair("a", "b", "c"), "prompt": [SYSTEM, {"role": "user", "content": "a"}]}, pair("d", "e", "f")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dropping = tmp_path / "dropping.jinja"
    dropping.write_text(
        "{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    words = ("--model_name_or_path", chat_model, "--chat_template_path", dropping)
    run_burnish(*job(tmp_path / "rows.jsonl", tmp_path / "run", *words))
    assert _report(tmp_path / "run")["counts"]["turn_changed"] == 1


def test_conversations_for_a_model_without_a_template_stop_the_run_with_the_cure(
    chat_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(chat_model, bare)
    (bare / "chat_template.jinja").unlink()
    (tmp_path / "rows.jsonl").write_text(json.dumps(pair()) + "\n")
    run_burnish(*job(tmp_path / "rows.jsonl", tmp_path / "run", "--model_name_or_path", bare), expect=2)
    error = capsys.readouterr().err
    assert "no chat template" in error
    assert "--chat_template_path" in error
    assert not (tmp_path / "run").exists()
