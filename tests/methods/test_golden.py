"""One step on the golden pairs equals TRL 1.16's: loss, gradient norm and metrics, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runs import read_metrics, run_burnish

GOLDEN = Path(__file__).parents[1] / "golden" / "qwen2"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())["cases"]
RELATIVE = 1e-4


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["config"]))
@pytest.mark.parametrize("max_tokens", [64, 100_000])
def test_one_step_equals_trl(case: dict[str, Any], max_tokens: int, tmp_path: Path) -> None:
    flags = [word for name, value in case["config"].items() for word in _words(name, value)]
    run_burnish(
        "dpo",
        *("--model_name_or_path", GOLDEN / "policy", "--ref_model_name_or_path", GOLDEN / "reference"),
        *("--dataset_name", GOLDEN / "pairs.json", "--output_dir", tmp_path / "run"),
        *("--global_batch_size", 8, "--max_steps", 1, "--learning_rate", 0, "--logging_steps", 1),
        *("--max_grad_norm", 0, "--save_strategy", "no", "--num_samples", 0, "--token_metrics"),
        *("--max_tokens_per_micro_batch", max_tokens),
        *flags,
    )
    record = read_metrics(tmp_path / "run")[0]
    assert record["loss"] == pytest.approx(case["loss"], rel=RELATIVE)
    assert record["grad_norm"] == pytest.approx(case["grad_norm"], rel=RELATIVE)
    for name, value in case["metrics"].items():
        assert record[name] == pytest.approx(value, rel=RELATIVE, abs=1e-6), name


def _words(name: str, value: Any) -> list[str]:
    return [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
