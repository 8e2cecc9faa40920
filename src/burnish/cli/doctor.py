"""`burnish doctor`: its flags, and what a pipe into it means.

Imports nothing that imports torch: it must run where torch cannot.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import select
import stat
import sys
from collections.abc import Iterable
from typing import Any, NoReturn, cast

from burnish.device.doctor.command import diagnose, explain_text, language_of
from burnish.device.doctor.machine import Wanted, this_machine
from burnish.device.doctor.messages import MESSAGES, Language
from burnish.errors import ConfigError

_DESCRIPTION = """Goes down the chain from the device's node to a first gradient and names the first broken link.
The last sentence says what to do first. Also explains error texts: burnish doctor --explain "TEXT", or
cat LOG | burnish doctor --explain -"""
_EXIT_CODES = """Exit codes: 0 nothing failed (warnings are allowed), 2 a check failed.
With --explain: 0 a text is known, 2 none is, or there was no text."""
_PATIENCE_SECONDS = 2.0
"""How long an unasked-for pipe may take to say something: a remote shell's pipe never does."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"burnish doctor: {message}\nburnish doctor --help lists its flags.")


def run(argv: list[str]) -> int:
    """Examine this machine, or explain a text."""
    flags = _parse(argv)
    machine = this_machine(cast("Wanted", flags.device))
    language: Language = flags.lang or language_of(machine)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a sign still gets its line.
        sys.stdout.reconfigure(errors="replace")
    lines = _text_to_explain(flags.explain)
    if lines is None:
        return diagnose(machine, language=language, smoke=flags.smoke, as_json=flags.json, out=sys.stdout)
    text = _with_text(lines)
    if text is None:
        message = MESSAGES["explain.empty"]
        raise ConfigError(f"{message.text(language)}\n{message.cure(language)}")
    return explain_text(text, language=language, as_json=flags.json, out=sys.stdout)


def _with_text(lines: Iterable[str]) -> Iterable[str] | None:
    """The same lines, read no further than the first that says something; None where none does. Logs can be large."""
    rest = iter(lines)
    blank: list[str] = []
    for line in rest:
        blank.append(line)
        if line.strip():
            return itertools.chain(blank, rest)
    return None


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="burnish doctor",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--smoke", action="store_true", help="also compute on the device and sum over two processes")
    parser.add_argument("--json", action="store_true", help="the report as JSON, to paste into an issue")
    parser.add_argument("--lang", choices=["en", "zh"], help="language of the report; default: the locale's")
    parser.add_argument(
        "--device",
        choices=["auto", "npu", "cuda", "cpu"],
        default="auto",
        help="npu or cuda: check it even where nothing hints at one; cpu: skip both; default auto",
    )
    parser.add_argument(
        "--explain", nargs="?", const="-", metavar="TEXT", help="name cause and cure of TEXT; - reads standard input"
    )
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _text_to_explain(asked: str | None) -> Iterable[str] | None:
    """Lines to explain: of the flag, or of a file or pipe that stands for standard input; None for an examination."""
    if asked == "-":
        return sys.stdin
    if asked is not None:
        return asked.splitlines()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if stat.S_ISREG(mode) and os.fstat(sys.stdin.fileno()).st_size:
            return sys.stdin
        if stat.S_ISFIFO(mode) and _says_something():
            return sys.stdin
    return None


def _says_something() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], _PATIENCE_SECONDS)
    # Peeking tells data from a closed pipe, and leaves the data where it is.
    return bool(ready) and bool(cast("Any", sys.stdin).buffer.peek(1))
