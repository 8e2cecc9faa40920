"""Every error that burnish raises on purpose, and the exit code that each one means.

A message is one or two lines: the thing, the place, the cure. Each kind is also a standard exception, so that
library users can catch what they already know.

Exit codes: 0 done, 1 an unexpected error or a group that no memory holds, 2 bad settings or data, a locked folder or a
hub out of reach, 3 integrity of files on disk, 4 numerics, 75 preempted and resumable, 134 a hang (--hang_timeout).
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_UNEXPECTED = 1
EXIT_PREEMPTED = 75
EXIT_HANG = 134


class BurnishError(Exception):
    """Base of all errors with a message meant for the user."""

    exit_code = EXIT_UNEXPECTED


class ConfigError(BurnishError, ValueError):
    """A setting is unknown, malformed, out of range, or contradicts another."""

    exit_code = 2


class DataError(BurnishError, ValueError):
    """Rows that cannot be read, recognised or used; names file, line and reason."""

    exit_code = 2


class ModelError(BurnishError, ValueError):
    """A model or tokenizer folder that cannot be used; names the folder and the file."""

    exit_code = 2


class HubError(BurnishError, ConnectionError):
    """A model or data hub is out of reach; says how to give a local folder instead."""

    exit_code = 2


class LockedError(BurnishError, FileExistsError):
    """The output folder belongs to another run, alive or finished."""

    exit_code = 2


class IntegrityError(BurnishError, RuntimeError):
    """Files on disk are not what their manifest says, or could not be written."""

    exit_code = 3


class UnwrittenError(IntegrityError):
    """A checkpoint or records that the disk did not take; what was written before is untouched."""

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem}; {cure}" if cure else problem)
        self.problem = problem
        """What is wrong, without what to do about it."""


class NumericsError(BurnishError, ArithmeticError):
    """A loss, gradient or weight is not what the mathematics allows."""

    exit_code = 4


class OutOfMemoryError(BurnishError, MemoryError):
    """A single group does not fit into the device's memory; names its row."""


class Preempted(BurnishError, InterruptedError):  # noqa: N818 (not an error: a state that ends the process)
    """The run stopped on request after committing a checkpoint, and can be resumed."""

    exit_code = EXIT_PREEMPTED
