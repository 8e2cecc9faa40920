"""The command as a process of its own: how it ends, alone and as one of several ranks."""

from __future__ import annotations

import atexit
import os
import sys
from typing import NoReturn

from burnish.cli.main import main
from burnish.errors import EXIT_DONE, EXIT_PREEMPTED


def run_process() -> NoReturn:
    """Run the words of the command line, and end the process with their exit code."""
    end_process(main())


def end_process(code: int) -> NoReturn:
    """End this process; one of several ranks without the destructors of the C++ libraries in it.

    The threads of torch's process groups may still run when those come, and then a rank whose work is done and written
    ends by SIGABRT ("terminate called without an active exception"), which the launcher must take for a failure. What
    Python has to do at exit is done first. Groups are closed after an orderly end alone: where a rank was lost, closing
    them could wait for it.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    if code in (EXIT_DONE, EXIT_PREEMPTED) and "torch" in sys.modules:
        from burnish.device.ranks import leave_ranks

        leave_ranks()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # its reader is gone, and there is nobody to tell
            continue
    os._exit(code)
