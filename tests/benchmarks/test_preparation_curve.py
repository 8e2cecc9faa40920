"""The curve of preparation: generated rows are what they say, and every size is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ultrafeedback_rows
from burnish.demo import demo_paths

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "preparation_curve.py"


def test_generated_rows_have_the_shape_and_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ultrafeedback_rows.main(200, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "one").read_text("utf-8").splitlines()]
    assert len(rows) == 200
    for row in rows:
        assert row["chosen"][0] == row["rejected"][0]
        assert [turn["role"] for turn in row["chosen"]] == ["user", "assistant"]
    lengths = sorted(len(row["chosen"][1]["content"]) for row in rows)
    assert 600 < lengths[100] < 1400
    assert lengths[-1] > 3 * lengths[100]


@pytest.mark.slow  # two processes that import transformers: 30 s
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
def test_memory_of_preparation_is_flat_and_the_second_start_skips_it(tmp_path: Path) -> None:
    out = tmp_path / "points.json"
    words = ["--model", demo_paths().model, "--rows", 2000, 10_000, "--out", out]
    subprocess.run([sys.executable, str(SCRIPT), *map(str, words)], check=True, capture_output=True)
    few, many = json.loads(out.read_text())
    # The larger set's groups are 40 MB on disk, its rows as Python objects several times that.
    assert many["more_bytes"] - few["more_bytes"] < 80 * 2**20
    assert many["cached_seconds"] < many["seconds"] / 4
