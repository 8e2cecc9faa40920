"""A run that makes no progress ends by itself: every rank's stacks are written, then the process aborts with code 134.

A thread of its own looks at the time of the last sign of life. Where native code holds the interpreter's lock, so that
no thread of Python runs, faulthandler's own thread writes the stacks a little later and ends the process with code 1.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from burnish.device.ranks import Ranks
from burnish.engine.duration import format_duration
from burnish.errors import EXIT_HANG

STACKS_SIGNAL = getattr(signal, "SIGUSR1", None)
"""Asks a rank for its stacks; None on systems that have no such signal."""
GRACE_SECONDS = 15.0
"""How much later the last resort strikes."""
PEERS_SECONDS = 1.0
"""Time for the other ranks to write their stacks."""


def _nothing() -> None:
    """What a run without a watchdog is told of a sign of life."""


@dataclass(slots=True)
class Watchdog:
    """Ends the process when `beat` has not been called for `seconds`."""

    seconds: float | None = None
    """Longest time without a sign of life; None watches nothing."""
    ranks: Ranks = field(default_factory=Ranks)
    on_hang: Callable[[], None] = _nothing
    """Told right before the end, for what must be written down."""
    _last: float = 0.0
    _place: str = "the start"
    _peers: list[int] = field(default_factory=list)
    """Processes of the other ranks on this machine."""

    def beat(self, place: str) -> None:
        """A sign of life, and where it comes from; cheap, so called for every micro-batch."""
        if self.seconds is None:
            return
        self._last, self._place = time.monotonic(), place
        faulthandler.dump_traceback_later(self.seconds + GRACE_SECONDS, file=2, exit=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs; every rank enters it, for they tell each other their process ids."""
        if self.seconds is None:
            yield
            return
        here = socket.gethostname()
        processes = self.ranks.gather([here, os.getpid()])
        self._peers = [pid for host, pid in processes if host == here and pid != os.getpid()]
        if STACKS_SIGNAL is not None:
            faulthandler.register(STACKS_SIGNAL, file=2, all_threads=True)
        ended = threading.Event()
        self.beat("the start")
        watcher = threading.Thread(target=self._watch, args=(ended,), name="burnish-watchdog", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            faulthandler.cancel_dump_traceback_later()
            # The handler stays: a peer that gives up may still ask, and the signal would end a process without one.

    def _watch(self, ended: threading.Event) -> None:
        assert self.seconds is not None
        while not ended.wait(min(1.0, self.seconds / 10)):
            if time.monotonic() - self._last > self.seconds:
                self._abort()

    def _abort(self) -> None:
        """Write all stacks and end the process; what hangs is not asked to clean up."""
        assert self.seconds is not None
        faulthandler.cancel_dump_traceback_later()
        os.write(2, f"\nburnish: stacks of rank {self.ranks.rank}:\n".encode())
        faulthandler.dump_traceback(file=2, all_threads=True)
        for pid in self._peers:
            if STACKS_SIGNAL is not None:
                _ask(pid, STACKS_SIGNAL)
        if self._peers:
            time.sleep(PEERS_SECONDS)
        self.on_hang()
        words = f"no sign of life for {format_duration(self.seconds)} (--hang_timeout), the last in {self._place}"
        last = f"burnish: rank {self.ranks.rank}: {words}; stacks above. Aborting with code {EXIT_HANG}.\n"
        os.write(2, last.encode())
        os._exit(EXIT_HANG)


def _ask(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
