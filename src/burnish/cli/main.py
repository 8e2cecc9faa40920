"""The command `burnish`: which subcommand, which exit code, and what an error looks like."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from burnish import __version__
from burnish.console import is_main_process, printable
from burnish.errors import EXIT_DONE, EXIT_UNEXPECTED, BurnishError, ConfigError, Preempted

_SECONDS_FOR_THE_FIRST = 3.0
"""Longer than the launcher waits before it ends ranks that say what the first has said."""
_SECONDS_FOR_THE_CAUSE = 15.0
"""Longer than the launcher takes to end a rank: on its machine, the cause is all that is heard."""

USAGE = """burnish: post-trains language models on Ascend NPUs, CUDA GPUs and CPUs.

  burnish dpo --model_name_or_path M --dataset_name D …   train on preferences
  burnish dpo                                             the same on the embedded model and data
  burnish dpo --dry_run …                                 prepare everything, print the plan, stop
  burnish sft --model_name_or_path M --dataset_name D …   train on conversations, completions or texts
  burnish kto --model_name_or_path M --dataset_name D …   train on completions that are good or bad
  burnish reward --model_name_or_path M --dataset_name D … train a reward model on pairs or ranked lists
  burnish score RUN/model D OUT                           write the rewards of each row
  burnish launch --num_processes N dpo …                  any of these on several devices, and on several machines
  burnish check D --model_name_or_path M                  what a run would make of every row
  burnish explain D --row 7 --model_name_or_path M        one row as the model will see it
  burnish merge RUN OUT                                   an adapter run as one ordinary model folder
  burnish checkpoints RUN                                 list and verify a run's checkpoints
  burnish export RUN --step N OUT                         the model of one checkpoint as an ordinary folder
  burnish doctor                                          what is wrong with this machine, and the cure
  burnish --version

`burnish dpo --help` shows a command's settings, `--help-all` all of them. Exit codes: 0 done, 1 unexpected, 2 bad
settings or data, 3 damaged files, 4 numerics, 75 preempted and resumable."""


def _training(name: str) -> Callable[[list[str]], int]:
    def command(argv: list[str]) -> int:
        from burnish.cli.train import run

        return run(name, argv)

    return command


def _launch(argv: list[str]) -> int:
    from burnish.cli.launch import run

    return run(argv)


def _check(argv: list[str]) -> int:
    from burnish.cli.check import run

    return run(argv)


def _score(argv: list[str]) -> int:
    from burnish.cli.score import run

    return run(argv)


def _explain(argv: list[str]) -> int:
    from burnish.cli.explain import run

    return run(argv)


def _merge(argv: list[str]) -> int:
    from burnish.cli.merge import run

    return run(argv)


def _export(argv: list[str]) -> int:
    from burnish.cli.export import run

    return run(argv)


def _doctor(argv: list[str]) -> int:
    from burnish.cli.doctor import run

    return run(argv)


def _checkpoints(argv: list[str]) -> int:
    from burnish.cli.checkpoints import run

    return run(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "dpo": _training("dpo"),
    "sft": _training("sft"),
    "kto": _training("kto"),
    "reward": _training("reward"),
    "launch": _launch,
    "score": _score,
    "check": _check,
    "explain": _explain,
    "merge": _merge,
    "checkpoints": _checkpoints,
    "export": _export,
    "doctor": _doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and give its exit code; errors are one or two lines unless --debug asks for the traceback."""
    _write_what_the_terminal_cannot()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return EXIT_DONE
    if words[0] in ("--version", "-V"):
        print(f"burnish {__version__}")
        return EXIT_DONE
    debug = "--debug" in words
    try:
        return _command(words[0])(words[1:])
    except BurnishError as error:
        return _report(error, str(error), error.exit_code, debug)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except KeyboardInterrupt as error:
        return _report(error, "interrupted", 130, debug)
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        text = f"unexpected {type(error).__name__}: {first_line}\nRun again with --debug for the traceback."
        return _report(error, text, EXIT_UNEXPECTED, debug)


def _write_what_the_terminal_cannot() -> None:
    """Have characters that a terminal's encoding lacks written as escapes; an old locale should end no run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def _command(name: str) -> Callable[[list[str]], int]:
    if name in COMMANDS:
        return COMMANDS[name]
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}."
    raise ConfigError(f"burnish {name}: no such command; {hint}")


def _report(error: BaseException, text: str, code: int, debug: bool) -> int:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        text = _as_one_of_several(error, text)
    if debug:
        print(printable("".join(traceback.format_exception(error))), file=sys.stderr)
    if text:
        print(f"burnish: {printable(text)}", file=sys.stderr, flush=True)
    return code


def _as_one_of_several(error: BaseException, text: str) -> str:
    """What this rank says of its error, so that the cause stands first and what all ranks meet is told once.

    A rank that has lost another, and one that is not the first, waits before it speaks: the launcher ends it as soon
    as the rank with the cause (or the first rank, with the same error) has spoken and left.
    """
    from burnish.device.ranks import lost_contact

    rank = os.environ.get("RANK", "0")
    if isinstance(error, Preempted):
        return text if is_main_process() else ""
    if lost_contact(error):
        time.sleep(_SECONDS_FOR_THE_CAUSE)
        return f"rank {rank} lost another rank, whose own error is the cause ({text.splitlines()[0]})"
    if is_main_process():
        return text
    time.sleep(_SECONDS_FOR_THE_FIRST)
    return f"rank {rank}: {text}"
