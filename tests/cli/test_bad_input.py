"""Bad input ends with exit code 2, one or two lines with the cure, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import POLICY, job, write_pairs
from runs import run_burnish, spawn_burnish


def _model_without_weights(folder: Path) -> Path:
    shutil.copytree(POLICY, folder)
    (folder / "model.safetensors").unlink()
    return folder


def _rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _conversation(reply: str) -> dict[str, Any]:
    turn = lambda role, content: [{"role": role, "content": content}]  # noqa: E731
    return {"prompt": turn("user", "hi"), "chosen": turn("assistant", reply), "rejected": turn("assistant", "n")}


CASES: dict[str, Any] = {
    "unknown flag": (lambda tmp: ["--learning_rat", "1"], "did you mean learning_rate"),
    "negative beta": (lambda tmp: ["--beta", "-1"], "beta"),
    "not a number": (lambda tmp: ["--learning_rate", "fast"], "learning_rate"),
    "missing file": (lambda tmp: ["--dataset_name", tmp / "nowhere.jsonl"], "nowhere.jsonl"),
    "no weights": (lambda tmp: ["--model_name_or_path", _model_without_weights(tmp / "m")], "model.safetensors"),
    "missing model": (lambda tmp: ["--model_name_or_path", "./no-such-model"], "no-such-model"),
    "wrong columns": (lambda tmp: ["--dataset_name", _rows(tmp / "d.jsonl", {"a": 1}, {"a": 2})], "columns: a"),
    "no template": (lambda tmp: ["--dataset_name", _rows(tmp / "d.jsonl", _conversation("y"))], "--chat_template_path"),
    "broken row": (lambda tmp: ["--dataset_name", _broken(tmp / "d.jsonl")], "d.jsonl:2"),
    "unknown loss": (lambda tmp: ["--loss_type", "sigmod"], "sigmoid"),
    "unknown device": (lambda tmp: ["--device", "tpu"], "device"),
    "output is a file": (lambda tmp: ["--output_dir", _rows(tmp / "file", 1)], "file"),
    "no evaluation rows": (lambda tmp: ["--eval_strategy", "steps"], "--eval_dataset_name"),
    "unsupported": (lambda tmp: ["--load_in_4bit"], "load_in_4bit"),
}


def _broken(path: Path) -> Path:
    good = json.dumps({"prompt_ids": [3], "chosen_ids": [4], "rejected_ids": [5]})
    path.write_text(f"{good}\n{{broken\n{good}\n")
    return path


@pytest.mark.parametrize("case", CASES)
def test_each_kind_is_told_in_two_lines_and_leaves_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, says = CASES[case]
    words = build(tmp_path)
    output = tmp_path / "run"
    run_burnish(*job(write_pairs(tmp_path / "pairs.jsonl"), output), *words, expect=2)
    error = capsys.readouterr().err
    message = error[error.index("burnish: ") :].strip()
    assert says in message
    assert len(message.splitlines()) <= 3
    assert "Traceback" not in error
    assert not output.exists()


def test_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_burnish("dpo", "--beta", "-1", "--debug", expect=2)
    assert "Traceback" in capsys.readouterr().err


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--max_steps", 1)
    run_burnish(*words)
    run_burnish(*words, expect=2)
    assert "--overwrite" in capsys.readouterr().err
    run_burnish(*words, "--overwrite")


def test_a_changed_setting_is_refused_on_resume_with_a_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--max_steps", 2, "--save_strategy", "steps")
    run_burnish(*words)
    run_burnish(*words, "--resume_from_checkpoint", "auto", "--beta", 0.2, expect=2)
    assert "beta: 0.1 -> 0.2" in capsys.readouterr().err


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    run_burnish("dop", expect=2)
    assert "did you mean dpo" in capsys.readouterr().err


def test_help_answers_at_once_and_without_torch() -> None:
    durations = []
    for _ in range(3):
        began = time.perf_counter()
        done = spawn_burnish("--help")
        durations.append(time.perf_counter() - began)
        assert done.returncode == 0
        assert "burnish dpo" in done.stdout
    assert min(durations) < 0.5


def test_without_a_network_the_reference_job_says_so_in_one_line(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = Path(__file__).parents[2] / "examples" / "scripts" / "dpo.py"
    done = subprocess.run(
        [sys.executable, str(script), "--output_dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin", "HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"},
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("burnish: ")]
    assert "--model_name_or_path" in line
    assert not (tmp_path / "run").exists()
