"""The machine under examination: its files, environment and commands, each of which a test can replace."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

Wanted = Literal["auto", "npu", "cuda", "cpu"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    """Exit code; negative for a signal, as subprocess says it."""
    output: str = ""
    error: str = ""
    problem: Literal["", "missing", "timeout"] = ""

    @property
    def works(self) -> bool:
        return self.code == 0 and not self.problem

    @property
    def text(self) -> str:
        """Everything that it printed, output first."""
        return f"{self.output}\n{self.error}".strip()


class RunCommand(Protocol):
    """Runs a command for at most `timeout` seconds; without an environment, in this process's own."""

    def __call__(
        self, command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None
    ) -> Outcome: ...


@dataclass(slots=True)
class Machine:
    """Everything that a check may look at.

    A check asks the machine and never the process that it runs in, so that a fake tree, recorded command output and a
    dict of variables make any machine.
    """

    root: Path
    """What stands for `/`."""
    environment: Mapping[str, str]
    run: RunCommand
    python: str
    """The interpreter that training would use."""
    home: Path
    """The user's home folder, as seen under `root`."""
    kernel: str = ""
    """Release of the Linux kernel; empty elsewhere."""
    libc: tuple[str, str] = ("", "")
    """("glibc", "2.35"), or empty strings."""
    processor: str = "x86_64"
    wanted: Wanted = "auto"
    """`--device`: npu or cuda make their checks apply even where nothing hints at one."""
    may_use: Callable[[Path], bool] = field(default=lambda path: os.access(path, os.R_OK | os.W_OK))
    """Whether this user may read and write a device node."""
    _known: dict[Any, Any] = field(default_factory=dict)

    def path(self, absolute: str | Path) -> Path:
        """Place an absolute path under this machine's root."""
        return self.root / str(absolute).lstrip("/")

    def shown(self, path: Path) -> str:
        """Name a path as its user would: without a fake root, and `~` for home, which no pasted report should name."""
        if path.is_relative_to(self.home):
            return str(Path("~") / path.relative_to(self.home))
        return "/" + str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def text(self, absolute: str | Path) -> str:
        """Read a small file; empty where it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def glob(self, pattern: str) -> list[Path]:
        """List paths of this machine that match an absolute pattern, sorted."""
        try:
            return sorted(self.root.glob(pattern.lstrip("/")))
        except OSError:
            return []

    def variable(self, name: str) -> str:
        """Value of an environment variable, stripped; empty where it is not set."""
        return self.environment.get(name, "").strip()

    def once(self, look: Callable[[Machine], T]) -> T:
        """Ask a question that several checks share, and keep its answer: a probe of torch costs seconds."""
        if look not in self._known:
            self._known[look] = look(self)
        return self._known[look]


def this_machine(wanted: Wanted = "auto") -> Machine:
    """Take the machine that this process runs on."""
    return Machine(
        root=Path("/"),
        environment=dict(os.environ),
        run=run_command,
        python=sys.executable,
        home=Path.home(),
        kernel=platform.release() if sys.platform == "linux" else "",
        libc=platform.libc_ver() if sys.platform == "linux" else ("", ""),
        processor=platform.machine(),
        wanted=wanted,
    )


def run_command(command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a command in a session of its own, and end all of it when the time is over.

    A driver call on a sick card can hang for good, and so would the doctor.
    """
    found = shutil.which(command[0])
    if found is None:
        return Outcome(127, problem="missing")
    try:
        child = subprocess.Popen(
            [found, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return Outcome(126, error=str(error), problem="missing")
    try:
        output, error_text = child.communicate(timeout=timeout)
    except BaseException as error:
        _end(child)
        output, error_text = child.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return Outcome(child.returncode or -signal.SIGKILL, output, error_text, problem="timeout")
    return Outcome(child.returncode, output, error_text)


def _end(child: subprocess.Popen[str]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
