"""The processes of one machine: started together, ended together, and one exit code for all.

Standard library only: nothing is imported that a rank has to import anyway. What a rank learns comes in torchrun's
variables (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT), so that a rank cannot tell the two
apart. torchrun's own agent is not used, for it forgets the ranks' exit codes once it has been asked to stop, and gives
those that hang in a collective 30 s.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from burnish.console import notice
from burnish.errors import EXIT_DONE, EXIT_PREEMPTED, ConfigError, IntegrityError, NumericsError

LAUNCHER = "BURNISH_LAUNCHER"
"""Variable with the process id of the launcher that started a rank."""
POLL_SECONDS = 0.1
QUIET_SECONDS = 2.0
"""How long the other ranks may end by themselves, once one has failed."""
TERM_SECONDS = 12.0
"""How long they may take after SIGTERM; together well below the 30 s that are promised, and below the time for which a
rank that has lost another keeps its peace."""
PREEMPTED_SECONDS = 120.0
"""How long the other ranks may take to leave, once one has left after a checkpoint."""
EXIT_BY_SIGNAL = 128
FINAL = frozenset({EXIT_DONE, EXIT_PREEMPTED, ConfigError.exit_code, IntegrityError.exit_code, NumericsError.exit_code})
"""Exit codes after which nothing is started again: done, asked to stop, or an end that would come again."""
_FORWARDED = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the processes of a run stand."""

    num_processes: int
    """Of all machines together; a multiple of num_machines."""
    num_machines: int = 1
    machine_rank: int = 0
    """This machine's number, from 0."""
    main_ip: str = "127.0.0.1"
    """Address of machine 0."""
    main_port: int | None = None
    """Port of machine 0 on which ranks find each other; None takes a free one, on one machine."""

    @property
    def local_size(self) -> int:
        """Processes of this machine."""
        return self.num_processes // self.num_machines

    def environments(self) -> list[dict[str, str]]:
        """What is said to each process of this machine besides its own environment."""
        port = str(self.main_port or free_port())
        return [
            {
                "RANK": str(self.machine_rank * self.local_size + local_rank),
                "LOCAL_RANK": str(local_rank),
                "WORLD_SIZE": str(self.num_processes),
                "LOCAL_WORLD_SIZE": str(self.local_size),
                "GROUP_RANK": str(self.machine_rank),
                "MASTER_ADDR": self.main_ip,
                "MASTER_PORT": port,
                LAUNCHER: str(os.getpid()),
            }
            for local_rank in range(self.local_size)
        ]


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_processes(command: Sequence[str], placement: Placement) -> int:
    """Run a command once a rank of this machine, to the end of all; one that fails ends the others.

    SIGTERM and SIGINT are handed on to every rank. Ranks have sessions of their own, so that Ctrl-C in a terminal
    reaches each of them once.

    Returns:
        0 where all ranks were done; else the exit code of the first that failed, 128 + n where signal n killed it.
    """
    return run_restarting(command, command, placement, max_restarts=0)


def run_restarting(command: Sequence[str], again: Sequence[str], placement: Placement, *, max_restarts: int) -> int:
    """As `run_processes`; where a rank dies, all are started again, at most so many times.

    Not after an exit code of FINAL, and not once the launcher was asked to stop.

    Args:
        command: what is started first.
        again: what is started after that.
        placement: of this machine.
        max_restarts: ≥ 0.
    """
    restart = 0
    while True:
        group = _Group([_start(command, told) for told in placement.environments()], placement)
        with _forwarding(group):
            group.run()
        code = group.exit_code
        if code in FINAL or group.was_signalled or restart == max_restarts:
            return code
        restart += 1
        notice(f"burnish: the run ended with exit code {code}; starting it again (restart {restart} of {max_restarts})")
        command = again


def follow_launcher() -> None:
    """End this process when the launcher that started it is gone, even by kill -9: nobody would end it else."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or os.getppid() != int(launcher):
        return

    def watch() -> None:
        while os.getppid() == int(launcher):
            time.sleep(1)
        os._exit(EXIT_BY_SIGNAL + signal.SIGHUP)

    threading.Thread(target=watch, name="burnish-launcher", daemon=True).start()


class _Group:
    """The running processes, in the order of their ranks."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], placement: Placement) -> None:
        self.processes = processes
        self.placement = placement
        self.failed: tuple[int, int] | None = None
        """Local rank and return code of the first that failed."""
        self.was_signalled = False
        """Whether the launcher was asked to stop."""

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.processes if process.poll() is None]

    def run(self) -> None:
        """Wait until all are gone."""
        while self.running and self.failed is None:
            time.sleep(POLL_SECONDS)
            self._look()
        self._look()
        if self.failed is not None:
            self._end(PREEMPTED_SECONDS if self.failed[1] == EXIT_PREEMPTED else QUIET_SECONDS)

    def forward(self, number: int) -> None:
        """Hand on a signal that the launcher was sent."""
        self.was_signalled = True
        self.send(number)

    def send(self, number: int) -> None:
        """Send a signal to all that run."""
        for process in self.running:
            process.send_signal(number)

    @property
    def exit_code(self) -> int:
        """The code of the whole: 0, or that of the first that failed."""
        code = 0 if self.failed is None else self.failed[1]
        return code if code >= 0 else EXIT_BY_SIGNAL - code

    def _look(self) -> None:
        """Notice the first that failed, and name it at once where it was killed without a word of its own.

        Of several that failed between two looks one that was killed is the cause: the others may have lost it.
        """
        if self.failed is not None:
            return
        failed = [(process.returncode, place) for place, process in enumerate(self.processes) if process.returncode]
        if not failed:
            return
        code, place = min(failed, key=lambda one: (one[0] > 0, one[1]))
        self.failed = place, code
        if code < 0:
            rank = self.placement.machine_rank * self.placement.local_size + place
            name = signal.Signals(-code).name
            notice(
                f"burnish: rank {rank} was ended by {name}{_KILLED if name == 'SIGKILL' else ''}; the others end too."
            )

    def _end(self, quiet_seconds: float) -> None:
        for seconds, number in ((quiet_seconds, signal.SIGTERM), (TERM_SECONDS, signal.SIGKILL)):
            ends = time.monotonic() + seconds
            while self.running and time.monotonic() < ends:
                time.sleep(POLL_SECONDS)
            self.send(number)
        for process in self.processes:
            process.wait()


_KILLED = " (by someone, or by the kernel for want of memory: see dmesg)"


def _start(command: Sequence[str], told: dict[str, str]) -> subprocess.Popen[bytes]:
    threads = max(1, len(os.sched_getaffinity(0)) // int(told["LOCAL_WORLD_SIZE"]))
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ, **told}
    return subprocess.Popen(list(command), env=environment, start_new_session=True)


@contextmanager
def _forwarding(group: _Group) -> Iterator[None]:
    """Hand signals on while the block runs; whatever ends the block ends the processes."""
    old = {number: signal.signal(number, lambda received, _: group.forward(received)) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        group.send(signal.SIGKILL)
