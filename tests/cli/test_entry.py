"""A rank ends with its exit code whatever the libraries in it do when a process is taken down."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, ctypes, sys
libc = ctypes.CDLL(None)
abort = ctypes.cast(libc.abort, ctypes.c_void_p)
libc.__cxa_atexit(abort, None, None)  # as a destructor of C++ that meets a running thread
atexit.register(lambda: print("said at exit"))
from burnish.cli.entry import run_process
sys.argv = ["burnish", *sys.argv[1:]]
run_process()
"""


def _run(*words: str, ranks: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WORLD_SIZE": str(ranks), "RANK": "0"}
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_a_rank_ends_with_its_own_code_and_all_that_it_has_said(words: list[str], code: int) -> None:
    done = _run(*words, ranks=2)
    assert done.returncode == code, done.stderr
    assert done.stdout.endswith("said at exit\n")


def test_a_process_alone_ends_as_any_python_program() -> None:
    assert _run("--version", ranks=1).returncode < 0
