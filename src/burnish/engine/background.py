"""One job at a time beside the training: writing a checkpoint whose tensors have been copied."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BackgroundJob:
    """A thread that does one thing; what it raises is raised again where the run waits for it."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Wait for the job before, then begin this one.

        Raises:
            BaseException: whatever the job before has raised.
        """
        self.wait()
        # Not a daemon: a process that ends by itself lets the checkpoint be committed first.
        self._thread = threading.Thread(target=self._run, args=(work,), name="burnish-save")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the job, and raise what it raised."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def raise_if_failed(self) -> None:
        """Raise what the job raised, where it has ended; never waits."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
