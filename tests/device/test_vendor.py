"""A torch_npu without its CANN breaks torch for everyone else; it must not break burnish, as command or as library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.device.vendor import choose_environment
from jobs import job, write_pairs

CAUSE = "libhccl.so: cannot open shared object file: No such file or directory"
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def half_installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which torch_npu is installed and CANN is not."""
    site = tmp_path / "site"
    metadata = site / "torch_npu-2.13.0.dist-info"
    (site / "torch_npu").mkdir(parents=True)
    metadata.mkdir()
    (site / "torch_npu" / "__init__.py").write_text(f"import torch\nraise ImportError({CAUSE!r})\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.13.0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{SOURCE}"}


def _python(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, check=False
    )


def test_plain_torch_fails_there_and_burnish_does_not(half_installed: dict[str, str]) -> None:
    plain = _python(half_installed, "-c", "import torch")
    assert plain.returncode != 0
    assert "Failed to load the backend extension" in plain.stderr
    code = (
        "import burnish, torch, os; from transformers.utils import is_torch_npu_available as available;"
        "from burnish.device.pick import pick_device;"
        "print(available(), pick_device().reason, end=' ');"
        "print(os.environ.get('TORCH_DEVICE_BACKEND_AUTOLOAD'), 'TASK_QUEUE_ENABLE' in os.environ)"
    )
    guarded = _python(half_installed, "-c", code)
    assert guarded.returncode == 0, guarded.stderr
    assert guarded.stdout.startswith("False cpu, "), guarded.stdout
    assert CAUSE in guarded.stdout
    assert guarded.stdout.endswith("None False\n"), "the environment is as it was"


def test_the_command_runs_on_the_cpu_and_refuses_the_npu_with_its_cause(
    half_installed: dict[str, str], tmp_path: Path
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    words = job(data, tmp_path / "run", "--max_steps", 1)
    done = _python(half_installed, "-m", "burnish", *words)
    assert done.returncode == 0, done.stderr
    assert f"no npu: torch_npu cannot be loaded ({CAUSE})" in done.stderr
    refused = _python(half_installed, "-m", "burnish", *words, "--overwrite", "--device", "npu")
    assert refused.returncode == 2
    assert f"burnish: --device npu: torch_npu cannot be loaded ({CAUSE})" in refused.stderr
    assert len([line for line in refused.stderr.splitlines() if "burnish" in line]) == 1


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True", "TASK_QUEUE_ENABLE": "2"}),
        ({"TASK_QUEUE_ENABLE": "1"}, {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"}),
        ({"PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:64"}, {"TASK_QUEUE_ENABLE": "2"}),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, {"TASK_QUEUE_ENABLE": "2"}),
        ({"ASCEND_LAUNCH_BLOCKING": "1"}, {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"}),
        ({"ASCEND_LAUNCH_BLOCKING": "0", "PYTORCH_NPU_ALLOC_CONF": ""}, {"TASK_QUEUE_ENABLE": "2"}),
    ],
)
def test_settings_never_contradict_the_users(given: dict[str, str], made: dict[str, str]) -> None:
    assert choose_environment(given) == made
