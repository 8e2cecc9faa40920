"""Runs burnish in forked children of one process that has everything imported, so that a fault costs no import.

    python run_server.py

Reads JSON requests line by line and answers each with a line: `start` forks a run and gives its pid, `wait` gives its
exit code (negative: the signal that killed it). This process runs no tensor operation and no tokenizer: both start
threads, which a fork would not have.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import accelerate
import datasets
import injections
import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from burnish import DPOTrainer
from burnish.cli.main import main

IMPORTED = (accelerate, datasets, peft, torch, AutoModelForCausalLM, AutoTokenizer, TrainerCallback, DPOTrainer)


def start(request: dict[str, Any]) -> int:
    """Fork, and let the child run the command with its faults in place."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            path = os.devnull if name == "stdin" else request[name]
            flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            os.dup2(os.open(path, flags, 0o666), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(request["environment"])
        torch.set_num_threads(1)
        for fault in request["faults"]:
            getattr(injections, fault.pop("name"))(**fault)
        code = main(request["words"])
        sys.stdout.flush()
        os._exit(code)
    except BaseException as error:
        print(f"the run ended with {error!r}", file=sys.stderr, flush=True)
        os._exit(101)


def wait(pid: int, timeout: float) -> int | None:
    """The exit code of a child, or None when it is still running after `timeout` seconds."""
    ends = time.monotonic() + timeout
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > ends:
            return None
        time.sleep(0.005)


def serve() -> None:
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = start(request) if request["do"] == "start" else wait(request["pid"], request["timeout"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
