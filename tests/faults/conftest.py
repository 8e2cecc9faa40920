"""One forking server, one tiny job and one uninterrupted run for all fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.harness import Job, Server, make_model, make_pairs


def make_job(server: Server, inputs: Path, folder: Path) -> Job:
    return Job(server, inputs / "model", inputs / "pairs.jsonl", inputs / "held-out.jsonl", folder)


@pytest.fixture(scope="session")
def fault_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("outputs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def fault_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_model(folder / "model")
    make_pairs(folder / "pairs.jsonl")
    make_pairs(folder / "held-out.jsonl", count=24, seed=1)
    return folder


@pytest.fixture
def tiny(fault_server: Server, fault_inputs: Path, tmp_path: Path) -> Job:
    return make_job(fault_server, fault_inputs, tmp_path)


@pytest.fixture(scope="session")
def golden(fault_server: Server, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("golden"))
    job.run("golden")
    return job.path("golden")


@pytest.fixture(scope="session")
def killed(fault_server: Server, fault_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in step 11, with checkpoints of steps 3, 6 and 9; to be copied, not resumed."""
    job = make_job(fault_server, fault_inputs, tmp_path_factory.mktemp("killed"))
    job.run("killed", faults=({"name": "kill_at_step", "step": 11},), expect=-9)
    return job.path("killed")
