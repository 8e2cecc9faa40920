"""`burnish launch --num_processes 8 dpo …`: the same command on several devices, and on several machines."""

from __future__ import annotations

import difflib
import sys
from typing import Any

from burnish.cli.arguments import parse_arguments
from burnish.cli.methods import TRAINING, config_type_of
from burnish.device.processes import Placement, run_restarting
from burnish.errors import EXIT_DONE, ConfigError

USAGE = """usage: burnish launch --num_processes N [--setting value ...] METHOD [the method's settings ...]

Runs `burnish METHOD …` as N processes, each on a device of its own. The names are accelerate's.

  --num_processes N        processes of all machines together, one a device; >= 1
  --num_machines M         machines that take part; N is a multiple of it; default 1
  --machine_rank R         this machine's number, from 0; default 0
  --main_process_ip IP     address of machine 0; needed with several machines
  --main_process_port P    free port of machine 0; default 29500 with several machines, any free one else
  --max_restarts K         times that the run is started again after a rank died, from its newest checkpoint; default 0

With several machines, run the command on each with its own --machine_rank. METHOD is one of {methods}.
`torchrun` works as well: torchrun --nproc-per-node N -m burnish METHOD …"""

SCORE = "score"
METHODS = (*TRAINING, SCORE)
"""What can be launched."""
DEFAULT_PORT = 29500
"""accelerate's and torchrun's."""
_NUMBERS = {
    "num_processes": (1, None),
    "num_machines": (1, None),
    "machine_rank": (0, None),
    "main_process_port": (1, 65535),
    "max_restarts": (0, None),
}
_FLAGS = (*_NUMBERS, "main_process_ip")


def run(argv: list[str]) -> int:
    """Run the command with the words after `launch`; the ranks' exit code."""
    place = next((number for number, word in enumerate(argv) if word in METHODS), None)
    before = argv if place is None else argv[:place]
    if {"-h", "--help"} & set(before) or not argv:
        print(USAGE.format(methods=", ".join(METHODS)))
        return EXIT_DONE
    placement = read_placement(before)
    if place is None:
        raise ConfigError(f"burnish launch: which method? Put one of {', '.join(METHODS)} after the launch settings.")
    method, words = argv[place], argv[place + 1 :]
    if {"-h", "--help", "--help-all", "--help_all"} & set(words):
        return _print_help(method, words)
    restarts = max_restarts(before)
    # Read here too: a wrong flag is told once, before anything is started.
    more = _check_scoring(words, restarts) if method == SCORE else _check_training(method, words, restarts)
    command = [sys.executable, "-m", "burnish", *argv[place:]]
    return run_restarting(command, [*command, *more], placement, max_restarts=restarts)


def _print_help(method: str, words: list[str]) -> int:
    if method == SCORE:
        from burnish.cli.score import run as run_score

        return run_score(words)
    from burnish.cli.train import run as run_training

    return run_training(method, words)


def _check_training(method: str, words: list[str], restarts: int) -> list[str]:
    """Read a method's words; what it is told besides where it is started again."""
    config = parse_arguments(words, config_type_of(method)).config
    return _going_on(config) if restarts else []


def _check_scoring(words: list[str], restarts: int) -> list[str]:
    from burnish.cli.score import read_words

    read_words(words)
    if restarts:
        raise ConfigError("--max_restarts goes on from checkpoints, and `burnish score` writes none: leave it out.")
    return []


def read_placement(words: list[str]) -> Placement:
    """The launch settings before the method's name.

    Raises:
        ConfigError: a flag that is unknown, lacks its value or contradicts another.
    """
    given = _pairs(words)
    numbers = {name: _number(name, given[name]) for name in _NUMBERS if name in given}
    if "num_processes" not in numbers:
        raise ConfigError("burnish launch: --num_processes is missing; it is the number of devices of all machines.")
    machines, processes = numbers.get("num_machines", 1), numbers["num_processes"]
    if processes % machines:
        raise ConfigError(f"--num_processes {processes} counts all machines, so it must be a multiple of {machines}.")
    rank = numbers.get("machine_rank", 0)
    if rank >= machines:
        raise ConfigError(f"--machine_rank {rank}: of {machines} machines, the last is {machines - 1}.")
    if machines > 1 and "main_process_ip" not in given:
        raise ConfigError("--num_machines needs --main_process_ip: the address of machine 0, the same on all machines.")
    port = numbers.get("main_process_port", DEFAULT_PORT if machines > 1 else None)
    return Placement(processes, machines, rank, given.get("main_process_ip", "127.0.0.1"), port)


def max_restarts(words: list[str]) -> int:
    """How often a run is started again, by the launch settings that `read_placement` has found to be right.

    Raises:
        ConfigError: with several machines, whose launchers don't know of each other's restarts.
    """
    given = _pairs(words)
    count = _number("max_restarts", given.get("max_restarts", "0"))
    if count and int(given.get("num_machines", "1")) > 1:
        raise ConfigError(
            "--max_restarts is for one machine. On several, start the ranks by\n"
            "torchrun --max-restarts N --rdzv-backend c10d … -m burnish METHOD … --resume_from_checkpoint auto."
        )
    return count


def _going_on(config: Any) -> list[str]:
    """What a run that is started again is told besides.

    Raises:
        ConfigError: it would not find its own checkpoints, or take another run's for them.
    """
    if config.output_dir is None:
        raise ConfigError("--max_restarts needs --output_dir: the run that is started again goes on in it.")
    if config.overwrite or config.resume_from_checkpoint not in (None, "auto"):
        flag = "--overwrite" if config.overwrite else f"--resume_from_checkpoint {config.resume_from_checkpoint}"
        raise ConfigError(
            f"--max_restarts goes on from the newest checkpoint of its own run, and {flag} asks for another start: "
            "leave it out, and name a new --output_dir."
        )
    return [] if config.resume_from_checkpoint else ["--resume_from_checkpoint", "auto"]


def _pairs(words: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in _FLAGS:
            near = difflib.get_close_matches(name, _FLAGS, n=1, cutoff=0.5)
            cure = f"did you mean --{near[0]}?" if near else "settings of a run stand after the method's name."
            raise ConfigError(f"burnish launch {flag}: no such launch setting; {cure}")
        if not equals and (not rest or rest[0].startswith("--")):
            raise ConfigError(f"{flag} needs a value.")
        given[name] = value if equals else rest.pop(0)
    return given


def _number(name: str, text: str) -> int:
    least, most = _NUMBERS[name]
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        limit = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"--{name} {text}: must be a whole number, {limit}.")
    return int(text)
