"""Secrets that a run is given stay out of every file and every line that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import job, write_pairs
from runs import spawn_burnish

CANARIES = {
    "HF_TOKEN": "hf_canaryFromTheEnvironment0123456789",
    "WANDB_API_KEY": "canaryoftrackers0123456789abcdef01234567",
    "MY_PASSWORD": "canary-password-from-the-environment",
    "SWANLAB_API_KEY": "canarySwanlab0123456789",
    "AWS_SECRET_ACCESS_KEY": "canaryAws/0123456789+abc",
}
BY_FLAG = "hf_canaryFromTheCommandLine0123456789"
BY_FILE = "hf_canaryFromTheSettingsFile0123456789"
ALL = (*CANARIES.values(), BY_FLAG, BY_FILE)


def _assert_clean(folder: Path, *texts: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "settings.yaml"]
    assert files
    for secret in ALL:
        for path in files:
            assert secret.encode() not in path.read_bytes(), f"{secret} in {path}"
        for text in texts:
            assert secret not in text


def _settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(f"env:\n  HUGGING_FACE_HUB_TOKEN: {BY_FILE}\nhub_token: {BY_FILE}\n")
    return path


def test_no_secret_reaches_a_file_or_a_line(tmp_path: Path) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--config", _settings(tmp_path))
    words += ["--hub_token", BY_FLAG, "--push_to_hub_token", BY_FLAG, "--report_to", "tensorboard", "--use_peft"]
    words += ["--max_steps", 2, "--save_strategy", "steps", "--save_steps", 1, "--num_samples", 1]
    environment = {**CANARIES, "BURNISH_CACHE": str(tmp_path / "cache")}
    done = spawn_burnish(*words, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "trackers").rglob("*tfevents*"))
    _assert_clean(tmp_path, done.stdout, done.stderr)


SECRET_WORDS: dict[str, list[Any]] = {
    "unknown": ["--api_key", BY_FLAG],
    "misspelt": ["--hub_tokn", BY_FLAG],
    "wrong place": ["--beta", CANARIES["HF_TOKEN"]],
    "in a name": ["--model_name_or_path", f"./{CANARIES['MY_PASSWORD']}/model"],
    "in an address": ["--dataset_name", f"https://user:{CANARIES['HF_TOKEN']}@host/rows.jsonl"],
    "with a traceback": ["--dataset_name", f"https://user:{CANARIES['HF_TOKEN']}@host/rows.jsonl", "--debug"],
}


@pytest.mark.parametrize("case", SECRET_WORDS)
def test_no_secret_is_repeated_by_an_error(case: str, tmp_path: Path) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", *SECRET_WORDS[case])
    done = spawn_burnish(*words, cwd=tmp_path, **CANARIES)
    assert done.returncode == 2
    _assert_clean(tmp_path, done.stdout, done.stderr)
    assert done.stderr.strip()


def test_settings_that_hold_a_secret_are_written_without_it(tmp_path: Path) -> None:
    """A folder may be named like a secret; what vouches for a run must not publish it."""
    name = f"pairs-{CANARIES['MY_PASSWORD']}.jsonl"
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--run_name", CANARIES["HF_TOKEN"])
    done = spawn_burnish(*words, "--max_steps", 1, cwd=tmp_path, **CANARIES)
    assert done.returncode == 0, done.stderr
    _assert_clean(tmp_path / "run", done.stdout, done.stderr)
    assert "***" in (tmp_path / "run" / "run.yaml").read_text()
    assert name not in json.dumps([path.name for path in (tmp_path / "run").rglob("*")])
