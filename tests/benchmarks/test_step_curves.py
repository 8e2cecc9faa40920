"""The curves of a training step: every point has the shape that its axis says, and is measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import step_curves
from burnish.demo import demo_paths


def test_points_cover_the_axes() -> None:
    for name in step_curves.AXES:
        assert len([point for point in step_curves.POINTS if point.curve == name]) >= 3
    for point in step_curves.POINTS:
        if point.curve == "share":
            assert point.prompt / (point.prompt + point.completion) == pytest.approx(point.x, abs=0.01)
        if point.curve == "length":
            assert point.prompt + point.completion == point.x


@pytest.mark.slow  # three processes that import torch: 30 s
def test_a_longer_list_shares_its_prompt_and_costs_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "points.json"
    words = ["--model", demo_paths().model, "--curve", "completions", "--step_tokens", 1, "--threads", 1, "--out", out]
    monkeypatch.setattr(sys, "argv", ["step_curves.py", *map(str, words)])
    step_curves.main()
    points = json.loads(out.read_text())
    assert [point["completions"] for point in points] == [2, 4, 8]
    assert all(point["cached_seconds"] > 0 < point["seconds"] for point in points)
    prompt = points[0]["sequence_tokens"] - points[0]["computed_tokens"]
    for point in points:
        shared = point["sequence_tokens"] - point["computed_tokens"]
        assert shared == pytest.approx(prompt * (point["completions"] - 1), rel=0.05)
    assert capsys.readouterr().out.count("with the reference cached") == 3
