"""`burnish checkpoints RUN` says what is there and what is damaged."""

from __future__ import annotations

import pytest
import torch

from burnish.cli.main import main
from burnish.engine.checkpoint import CheckpointState, save_checkpoint
from burnish.engine.run_dir import RunDir


@pytest.fixture
def run(tmp_path) -> RunDir:
    run_dir = RunDir(tmp_path)
    for step in (3, 6, 9):
        tensors = {"model": {"w": torch.full((50,), float(step))}}
        save_checkpoint(run_dir, CheckpointState(step=step, tensors=tensors), healthy=step != 9)
    return run_dir


def test_good_checkpoints_are_listed_and_verified(run, capsys):
    assert main(["checkpoints", str(run.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["step-3", "step-6", "step-9"]
    assert lines[1].endswith("verified")
    assert "non-finite" in lines[2]
    assert lines[3] == "--resume_from_checkpoint auto goes on from step 6"


def test_damage_is_named_and_ends_with_code_3(run, capsys):
    path = run.checkpoints_dir / "step-6" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (run.checkpoints_dir / "step-12").mkdir()
    (run.checkpoints_dir / "notes").mkdir()
    assert main(["checkpoints", str(run.path)]) == 3
    out = capsys.readouterr().out
    assert "damaged: model.safetensors was changed" in out
    assert "step-12          not finished" in out
    assert "notes            not a checkpoint" in out
    assert "from step 3" in out
    assert main(["checkpoints", str(run.path), "--quick"]) == 0
    assert "sizes right" in capsys.readouterr().out


def test_a_folder_without_a_run_is_said_to_be_one(tmp_path, capsys):
    assert main(["checkpoints", str(tmp_path)]) == 0
    assert "no checkpoints" in capsys.readouterr().out
    assert main(["checkpoints", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
