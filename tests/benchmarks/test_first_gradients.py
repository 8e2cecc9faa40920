"""The time of the first gradients is told whoever computes them, and the command runs as it does without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import job, write_pairs

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_gradients.py"


@pytest.mark.parametrize("lazy", ["true", "false"])
def test_first_gradients_come_before_the_end(lazy: str, tmp_path: Path) -> None:
    rows = write_pairs(tmp_path / "rows.jsonl")
    words = job(rows, tmp_path / "run", "--max_steps", 2, "--lazy_tokenise", lazy)
    environment = os.environ | {"BURNISH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=True, env=environment
    )
    told = dict(re.findall(r"^(first gradients|done) after ([\d.]+) s$", done.stderr, re.MULTILINE))
    assert 0 < float(told["first gradients"]) <= float(told["done"])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
