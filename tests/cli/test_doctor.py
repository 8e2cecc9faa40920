"""`burnish doctor` as a user runs it, on this machine and where torch is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = 'raise ImportError("libhccl.so: cannot open shared object file: No such file or directory")\n'


def burnish(*words: str, text: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    command = [sys.executable, "-m", "burnish", "doctor", *words]
    settings = {"env": environment | {"OMP_NUM_THREADS": "1"} | variables, "capture_output": True, "encoding": "utf-8"}
    if text is None:
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, timeout=120, **settings)
    return subprocess.run(command, check=False, input=text, timeout=120, **settings)


@pytest.fixture
def broken_torch(tmp_path: Path) -> Path:
    """A folder whose torch cannot be imported, as after installing torch-npu without CANN."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(BROKEN)
    return tmp_path


def test_it_runs_where_torch_cannot_be_imported_and_names_the_cure(broken_torch: Path):
    done = burnish("--device", "npu", PYTHONPATH=str(broken_torch))
    assert done.returncode == 2
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("  FAIL  import "))
    assert "libhccl.so" in lines[at]
    assert "set_env.sh" in lines[at + 1]
    assert "Training cannot start on this machine yet." in lines


def test_the_report_of_a_cpu_machine_is_quick_and_whole():
    done = burnish("--device", "cpu", "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == facts["exit_code"]
    assert {check["check"] for check in facts["checks"] if check["status"] == "ok"} >= {"python", "torch", "import"}
    assert facts["uses"].startswith("Training would use cpu")


@pytest.mark.slow  # 15 s: torch is imported four times, twice at once
def test_smoke_computes_and_two_processes_agree():
    facts = json.loads(burnish("--device", "cpu", "--smoke", "--json").stdout)
    status = {check["check"]: check["status"] for check in facts["checks"]}
    assert {status[name] for name in ("matmul", "attention", "bf16", "optimizer", "all_reduce")} == {"ok"}


def test_a_text_is_explained_by_flag_and_by_pipe():
    for done in (
        burnish("--explain", "error code is 507033"),
        burnish("--explain", "-", text="step 1\nerror code is 507033\n"),
        burnish("--explain", text="step 1\nerror code is 507033\n"),
        burnish(text="step 1\nerror code is 507033\n"),
    ):
        assert done.returncode == 0
        assert "Upgrade driver and firmware" in done.stdout
    assert "line 2: error code is 507033" in burnish("--explain", text="\nerror code is 507033\n").stdout


def test_an_unknown_text_and_none_at_all_exit_2():
    assert burnish("--explain", "all is well").returncode == 2
    empty = burnish("--explain", "-", text="\n \n")
    assert empty.returncode == 2
    assert "There is no text to explain." in empty.stderr


def test_chinese_is_spoken_by_locale_and_by_flag():
    for done in (
        burnish("--explain", "EI0006", LANG="zh_CN.UTF-8", PYTHONUTF8="1"),
        burnish("--explain", "EI0006", "--lang", "zh", PYTHONUTF8="1"),
    ):
        assert "建链" in done.stdout


def test_a_terminal_without_chinese_gets_its_lines_all_the_same():
    done = burnish("--explain", "EI0006", "--lang", "zh", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "HCCL_CONNECT_TIMEOUT" in done.stdout


def test_an_unknown_flag_is_refused_in_one_line():
    done = burnish("--fix")
    assert done.returncode == 2
    assert "unrecognized arguments: --fix" in done.stderr
    assert "Traceback" not in done.stderr
