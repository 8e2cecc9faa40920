"""Being asked to stop: by SIGTERM, SIGINT or a time limit. The first asks, a second signal ends the process at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from burnish.engine.duration import format_duration

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_BY_SIGNAL = 128


@dataclass(slots=True)
class StopRequest:
    """Whether a run shall stop after the step that it is in, and why.

    Signals are counted by a thread of their own, which the kernel's handler wakes through a pipe: so the second one
    ends the process even while the main thread waits in a kernel or for another rank.
    """

    max_seconds: float | None = None
    """Time that the run may take, from `started`; None has no limit."""
    started: float = 0.0
    """When the clock began, by time.monotonic()."""
    longest_seconds: dict[str, float] = field(default_factory=dict)
    """Longest time that a step, a checkpoint, … took; the limit counts as reached earlier by their sum."""
    signal_number: int | None = None
    is_active: bool = False
    """Whether a run is listening; before and after it nothing is to be stopped."""

    @property
    def reason(self) -> str | None:
        """Why to stop, in words; None to go on. Looks at the clock."""
        if not self.is_active:
            return None
        if self.signal_number is not None:
            return signal.Signals(self.signal_number).name
        reserve = sum(self.longest_seconds.values())
        if self.max_seconds is not None and time.monotonic() - self.started + reserve >= self.max_seconds:
            return f"--max_time {format_duration(self.max_seconds)} is near"
        return None

    def note_time(self, what: str, seconds: float) -> None:
        """Learn how long something took that must still fit before the limit."""
        self.longest_seconds[what] = max(seconds, self.longest_seconds.get(what, 0.0))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as requests while the block runs; then the earlier handlers are back.

        Only the main thread may set handlers; a run in another one (a server, a notebook's worker) has only the clock.
        """
        self.is_active, self.signal_number = True, None
        try:
            with self._handlers():
                yield
        finally:
            self.is_active = False

    @contextmanager
    def _handlers(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        old_descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        old_handlers = {number: signal.signal(number, _do_nothing) or signal.SIG_DFL for number in SIGNALS}
        listener = threading.Thread(target=self._listen, args=(receiver,), name="burnish-signals", daemon=True)
        listener.start()
        try:
            yield
        finally:
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_descriptor)
            sender.close()
            listener.join()
            receiver.close()

    def _listen(self, receiver: socket.socket) -> None:
        while received := receiver.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            if self.signal_number is not None:
                os.write(2, f"burnish: {signal.Signals(number).name} again; stopping at once\n".encode())
                os._exit(EXIT_BY_SIGNAL + number)
            self.signal_number = number
            text = "received; finishing this step and saving a checkpoint (once more stops at once)"
            os.write(2, f"{signal.Signals(number).name} {text}\n".encode())


def _do_nothing(number: int, frame: object) -> None:
    """Python's part of the handler: the signal has been written to the pipe already."""
