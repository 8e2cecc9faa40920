"""The benchmark against TRL: its command is one that burnish takes, and its figures are those of the turns."""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from burnish.cli.arguments import parse_arguments
from burnish.methods.dpo import DPOConfig

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(**changes: Any) -> argparse.Namespace:
    given = {
        "model": Path("m"), "data": Path("d.jsonl"), "steps": 2, "rounds": 2, "threads": 2, "micro_batch": 2,
        "accumulation": 8, "learning_rate": 5e-7,
    }  # fmt: skip
    return argparse.Namespace(**given | changes)


def turn(seconds: list[float], *, total: float | None = None, memory: int = 2**30) -> dict[str, Any]:
    logged = {"loss": 0.6931, "grad_norm": 43.7, "logps/chosen": -241.3, "logps/rejected": -219.4}
    steps = [logged | {"seconds": value} for value in seconds]
    versions = {"torch": "2.13"}
    result = {"steps": steps, "peak_rss_bytes": memory, "versions": versions}
    return result if total is None else result | {"train_step_seconds": total}


def test_the_command_is_one_that_burnish_takes(tmp_path: Path):
    words = load("burnish_step").command_words(options(), tmp_path)
    parsed = parse_arguments(words, DPOConfig)
    assert parsed.notes == []
    assert parsed.config.per_device_train_batch_size * parsed.config.gradient_accumulation_steps == 16
    assert (parsed.config.max_steps, parsed.config.num_threads, parsed.config.precision) == (2, 2, "fp32")


def test_figures_are_medians_a_pair():
    compare = load("compare")
    turns = {
        "TRL": [turn([32.0, 32.0], memory=4 * 2**30), turn([64.0, 64.0], memory=4 * 2**30)],
        "burnish": [turn([0, 0], total=16.0), turn([0, 0], total=32.0)],
    }
    report = compare.summarise(turns, options())
    assert report["TRL"]["all_seconds_per_pair"] == [2.0, 4.0]
    assert (report["TRL"]["seconds_per_pair"], report["burnish"]["seconds_per_pair"]) == (3.0, 0.75)
    assert (report["time_ratio"], report["memory_ratio"]) == (4.0, 0.25)
    text = compare.render(report)
    assert "TRL's time over burnish's: 4.00; burnish's peak over TRL's: 0.25" in text
    assert text.count("-241.300000") == 4


def test_too_few_rows_say_so(tmp_path: Path):
    data = tmp_path / "d.jsonl"
    data.write_text("{}\n" * 31)
    with pytest.raises(SystemExit, match="has 31 rows; 2 steps take 32"):
        load("compare").first_rows(options(data=data), tmp_path)
