"""A run on local files makes no connection: sockets are forbidden to the whole process, and it finishes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import job, write_pairs

# Every way to a connection goes through one of these audit events; local sockets of the process itself may be.
GUARD = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[1] if event.startswith(("socket.connect", "socket.send")) else args[0]
        sys.stderr.write(f"CONNECTION {event} {address}\\n")
        raise RuntimeError(f"a connection was tried: {event} {address}")
sys.addaudithook(refuse)
from burnish.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def _run_without_sockets(tmp_path: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # The hub's own offline switch is not set: nothing should ask, whatever it says.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    caches = {"BURNISH_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", GUARD, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**kept, **caches, **environment},
    )


def test_the_guard_notices_a_connection(tmp_path: Path) -> None:
    done = _run_without_sockets(tmp_path, "dpo", "--model_name_or_path", "owner/model", "--max_steps", 1)
    assert "CONNECTION" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("offline", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_the_demo_makes_no_connection(offline: dict[str, str], tmp_path: Path) -> None:
    quick = ["--max_steps", 2, "--num_samples", 1, "--eval_strategy", "no", "--num_threads", 1]
    done = _run_without_sockets(tmp_path, "dpo", "--output_dir", "run", *quick, **offline)
    assert done.returncode == 0, done.stderr
    assert "CONNECTION" not in done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_an_adapter_run_with_a_tracker_makes_no_connection(tmp_path: Path) -> None:
    words = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--max_steps", 1, "--use_peft")
    done = _run_without_sockets(tmp_path, *words, "--report_to", "tensorboard", "--num_samples", 1)
    assert done.returncode == 0, done.stderr
    assert "CONNECTION" not in done.stderr


def test_in_offline_mode_a_hub_id_is_refused_without_a_connection(tmp_path: Path) -> None:
    for words in (["--model_name_or_path", "owner/model"], ["--dataset_name", "owner/pairs"]):
        local = job(write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run")
        done = _run_without_sockets(tmp_path, *local, *words, HF_HUB_OFFLINE="1")
        assert done.returncode == 2
        assert "CONNECTION" not in done.stderr
        assert words[1] in done.stderr.splitlines()[-1]
