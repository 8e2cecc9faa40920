"""`burnish dpo` without model and data: the embedded model learns manners. Budget: three minutes on two cores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runs import read_metrics, run_burnish


@pytest.mark.slow
def test_the_embedded_model_learns_manners_and_forgets_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_burnish("dpo", "--output_dir", tmp_path / "run")
    evaluations = [record for record in read_metrics(tmp_path / "run") if record["kind"] == "eval"]
    assert evaluations[-1]["eval_rewards/accuracies"] >= 0.95
    captured = capsys.readouterr()
    assert "health: " not in captured.err
    printed = captured.out
    preferred, correct = (
        [float(share) for share in re.findall(r"([\d.]+)%", line)]
        for line in printed.splitlines()
        if "preferred manner" in line or "right answer" in line
    )
    assert 25 <= preferred[0] <= 65
    assert preferred[1] >= 95
    assert correct[1] >= correct[0]
