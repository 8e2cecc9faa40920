"""Rows that a process beside the run prepares give the run that prepares them itself, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish import DPOConfig, DPOTrainer, SFTConfig
from burnish.cli.methods import KINDS, trainer_type_of
from burnish.errors import DataError
from burnish.methods import ahead
from burnish.methods.ahead import Ahead, AheadSettings, CountedAheadSettings, prepare_ahead
from jobs import POLICY, job, model_tensors, stage_job, write_completions, write_pairs
from runs import read_metrics, run_burnish

LAZY = ("--lazy_tokenise", True)
WAITS = 120.0
"""Seconds until a process that should have come or gone is given up."""
ENDLESS = (
    "{% if messages | length > 1 %}{% for i in range(99999) %}{% for j in range(99999) %}{% set never = i %}"
    "{% endfor %}{% endfor %}{% endif %}"
)
"""A chat template that takes hours over a whole conversation."""


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Begin with no prepared rows, and with none again when called with another name."""

    def use(name: str) -> None:
        monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / f"cache-{name}"))

    use("first")
    return use


def _losses(run: Path) -> list[tuple[float, float]]:
    return [(record["loss"], record["grad_norm"]) for record in read_metrics(run) if record["kind"] == "train"]


def _until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAITS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _endless_settings(folder: Path) -> dict[str, Any]:
    """Settings of a preparation that does not end by itself."""
    rows, template = folder / "talks.jsonl", folder / "endless.jinja"
    turns = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    row = {"prompt": turns("user", "a"), "chosen": turns("assistant", "b"), "rejected": turns("assistant", "c")}
    rows.write_text(json.dumps(row) + "\n")
    template.write_text(ENDLESS)
    names = {"model_name_or_path": POLICY, "dataset_name": rows, "chat_template_path": template}
    # With an evaluation before the first step, no row is taken before the others.
    return {name: str(path) for name, path in names.items()} | {"lazy_tokenise": True, "eval_on_start": True}


def _half_written(folder: Path) -> list[Path]:
    return list(folder.glob("cache-first/data/.*.tmp"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("dpo", ["--use_peft", True, "--lora_dropout", 0.1, "--max_steps", 3]),
        ("reward", ["--max_steps", 3]),
        ("sft", ["--max_steps", 2, "--eval_steps", 1]),
    ],
)
def test_losses_and_weights_are_those_of_the_eager_run(
    tmp_path: Path, caches: Callable[[str], None], command: str, words: list[Any]
) -> None:
    write = write_completions if command == "sft" else write_pairs
    rows, held_out = write(tmp_path / "rows.jsonl"), write(tmp_path / "held_out.jsonl", seed=1, count=5)
    words = [*words, "--eval_dataset_name", held_out, "--deterministic", True]
    run_burnish(*stage_job(command, rows, tmp_path / "eager", *words))
    caches("second")
    run_burnish(*stage_job(command, rows, tmp_path / "lazy", *words, *LAZY))
    assert _losses(tmp_path / "lazy") == _losses(tmp_path / "eager")
    evaluated = [
        [r["eval_loss"] for r in read_metrics(tmp_path / name) if "eval_loss" in r] for name in ("eager", "lazy")
    ]
    assert evaluated[0] == evaluated[1]
    reports = [json.loads((tmp_path / name / "data_report.json").read_text()) for name in ("eager", "lazy")]
    assert reports[0] == reports[1]
    name = "adapter_model.safetensors" if command == "dpo" else "model.safetensors"
    weights = [(tmp_path / run / "model" / name).read_bytes() for run in ("eager", "lazy")]
    assert weights[0] == weights[1]


def test_the_run_finds_prepared_what_it_asks_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows, held_out = write_pairs(tmp_path / "rows.jsonl"), write_pairs(tmp_path / "held_out.jsonl", seed=1)
    settings = DPOConfig(
        model_name_or_path=str(POLICY),
        dataset_name=str(rows),
        eval_data={"other": str(held_out)},
        output_dir=str(tmp_path / "run"),
        lazy_tokenise=True,
    )
    session = DPOTrainer(args=settings).session
    assert "by itself" not in capfd.readouterr().err
    assert session.train.report.from_cache
    assert session.held_out["other"].report.from_cache


def test_an_eager_run_goes_on_from_a_lazy_one(tmp_path: Path, caches: Callable[[str], None]) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl")
    saves = ["--save_strategy", "steps", "--save_steps", 1, "--lr_scheduler_type", "constant"]
    run_burnish(*job(rows, tmp_path / "whole", "--max_steps", 3, *saves))
    caches("second")
    run_burnish(*job(rows, tmp_path / "cut", "--max_steps", 3, *saves, *LAZY))
    resumed = ["--max_steps", 3, *saves, "--resume_from_checkpoint", tmp_path / "cut" / "checkpoints" / "step-2"]
    run_burnish(*job(rows, tmp_path / "resumed", *resumed))
    caches("third")
    run_burnish(*job(rows, tmp_path / "resumed-lazily", *resumed, *LAZY))
    whole = model_tensors(tmp_path / "whole")
    for name in ("resumed", "resumed-lazily"):
        tensors = model_tensors(tmp_path / name)
        assert all(torch.equal(tensors[key], whole[key]) for key in whole)


def test_a_bad_row_ends_the_run_as_it_does_without(
    tmp_path: Path, caches: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl")
    with rows.open("a") as file:
        file.write('{"prompt_ids": [3], "chosen_ids": [4]\n')
    told: list[str] = []
    for number, words in enumerate(((), LAZY)):
        caches(str(number))
        run_burnish(*job(rows, tmp_path / "run", *words), expect=2)
        told.append(capfd.readouterr().err)
        assert not (tmp_path / "run").exists()
    device, _, fault = told[1].partition("\n")
    assert "rows.jsonl:25: not JSON" in told[0]
    assert (device[:7], fault) == ("device:", told[0])
    assert not list(tmp_path.glob("cache-1/data/*"))


def test_rejected_rows_are_kept_as_they_are_without(tmp_path: Path, caches: Callable[[str], None]) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl")
    with rows.open("a") as file:
        file.write("no row\n")
    kept: list[str] = []
    for number, words in enumerate(((), LAZY)):
        caches(str(number))
        run = tmp_path / f"run-{number}"
        run_burnish(*job(rows, run, "--on_bad_row", "skip", "--max_steps", 1, *words))
        kept.append((run / "rejected_rows.jsonl").read_text())
    assert "no row" in kept[0]
    assert kept[1] == kept[0]


def test_where_the_process_breaks_down_the_run_prepares_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ahead, "WORKER", "burnish.no_such_module")
    run_burnish(*job(write_pairs(tmp_path / "rows.jsonl"), tmp_path / "run", "--max_steps", 1, *LAZY))
    assert "ended with code 1; the run tokenises by itself" in capfd.readouterr().err
    assert len(_losses(tmp_path / "run")) == 1


def test_rows_in_memory_are_tokenised_first_and_a_line_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in write_pairs(tmp_path / "rows.jsonl").read_text().splitlines()]
    settings = DPOConfig(model_name_or_path=str(POLICY), output_dir=str(tmp_path / "run"), lazy_tokenise=True)
    assert not DPOTrainer(args=settings, train_dataset=rows).session.train.report.from_cache
    told = capfd.readouterr().err
    assert "tokenised before the model is loaded, since train_dataset came from Python" in told


@pytest.mark.parametrize(
    ("settings", "ranks", "words"),
    [
        ({"dataset_num_proc": 2}, "1", "--dataset_num_proc 2 has processes of its own"),
        ({"dry_run": True}, "1", "--dry_run trains nothing"),
        ({}, "2", "several ranks share what one of them prepares"),
    ],
)
def test_what_stands_in_the_way_is_said(
    settings: dict[str, Any],
    ranks: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WORLD_SIZE", ranks)
    with prepare_ahead(DPOConfig(lazy_tokenise=True, **settings), (), "preference") as process:
        assert process is None
    assert words in capfd.readouterr().err


def test_a_run_that_fails_takes_the_process_along(tmp_path: Path) -> None:
    process = Ahead(DPOConfig(**_endless_settings(tmp_path)), "preference")

    def fail() -> None:
        with process:
            _until(lambda: bool(_half_written(tmp_path)), "the process has not begun")
            raise DataError("no model")

    with pytest.raises(DataError, match="no model"):
        fail()
    assert process.process.poll() is not None
    assert not process.folder.exists()
    assert not _half_written(tmp_path)


def test_a_run_that_is_killed_takes_the_process_along(tmp_path: Path) -> None:
    code = (
        "import json, sys, time; from burnish import DPOConfig; from burnish.methods.ahead import Ahead\n"
        "started = Ahead(DPOConfig(**json.loads(sys.argv[1])), 'preference')\n"
        "print(started.process.pid, started.folder, flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", code, json.dumps(_endless_settings(tmp_path))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        process_id, folder = run.stdout.readline().split()
        try:
            _until(lambda: bool(_half_written(tmp_path)), "the process has not begun")
            run.send_signal(signal.SIGKILL)
            run.wait()
            _until(lambda: not _is_alive(int(process_id)), "the process goes on without its run")
        finally:
            run.kill()
            if _is_alive(int(process_id)):
                os.kill(int(process_id), signal.SIGKILL)
    assert not _half_written(tmp_path)
    assert not Path(folder).exists()


def test_commands_know_what_their_trainers_learn_from() -> None:
    assert {name: trainer_type_of(name).kind for name in KINDS} == KINDS


def test_the_process_is_told_all_settings_of_the_data() -> None:
    from burnish.data.settings import CountingSettings, DataSettings

    told = {field.name for field in fields(CountedAheadSettings)}
    assert told >= {field.name for one in (DataSettings, CountingSettings) for field in fields(one)}
    assert issubclass(SFTConfig, CountingSettings)
    assert not issubclass(AheadSettings, CountingSettings)
