"""`--lazy_tokenise`: rows are prepared by a process beside this one, while this one loads the model.

The process does what the run would do, into the ordinary cache of prepared rows; the run then finds them there by
content. So order and result are those of a run that prepares them itself, and where the process fails, the run does.
It is told what to do by a file and started as a module, ends with the run however that ends, and says in a file what
was wrong with the rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Self

from burnish import errors
from burnish.console import notice
from burnish.data.kinds import GroupKind
from burnish.data.settings import CountingSettings, DataSettings
from burnish.errors import BurnishError
from burnish.methods.config import global_batch_size
from burnish.models.settings import ModelSettings

if TYPE_CHECKING:
    from burnish.data.prepare import Prepared

WORKER = "burnish.methods.ahead_worker"
TASK, FAULT, FRONT, FRONT_FACTS = "task.json", "fault.json", "front.arrow", "front.json"
LOOKS_SECONDS = 0.02
"""Between looks for what the process hands over."""
END_SECONDS = 15.0
"""How long the process may take to leave, once it is told to."""


@dataclass(kw_only=True)
class AheadSettings(DataSettings, ModelSettings):
    """What decides the prepared rows."""

    eval_strategy: str | None = None


@dataclass(kw_only=True)
class CountedAheadSettings(CountingSettings, AheadSettings):
    """The same for supervised tuning."""


def prepare_ahead(
    config: Any, given: Sequence[str], kind: GroupKind, *, tells: bool = True
) -> AbstractContextManager[Ahead | None]:
    """Start the process where the settings ask for it and it can do the work; the block's end ends it.

    Args:
        config: settings of a method.
        given: names of what Python hands over.
        kind: what the method learns from.
        tells: whether a line says what stands in the way.
    """
    if not config.lazy_tokenise:
        return nullcontext()
    obstacle = _obstacle(config, given)
    if obstacle is not None and tells:
        notice(f"--lazy_tokenise: the rows are tokenised before the model is loaded, since {obstacle}")
    return nullcontext() if obstacle is not None else Ahead(config, kind)


def _obstacle(config: Any, given: Sequence[str]) -> str | None:
    """Why the run has to prepare its rows by itself."""
    if given:
        return f"{' and '.join(given)} came from Python, and another process cannot see them"
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return "several ranks share what one of them prepares"
    if (config.dataset_num_proc or 1) > 1:
        return f"--dataset_num_proc {config.dataset_num_proc} has processes of its own"
    return "--dry_run trains nothing" if config.dry_run else None


def obstacle_to_beginning(config: Any, kept: Sequence[str] = ()) -> str | None:
    """Why the first step has to wait for all rows; None where it may begin before.

    Args:
        config: settings of a method.
        kept: names of what Python hands over besides data.
    """
    if kept:
        return f"{' and '.join(kept)} came from Python"
    reasons = {
        "--resume_from_checkpoint goes on from another": config.resume_from_checkpoint,
        "--precompute_ref_log_probs scores all before it": getattr(config, "precompute_ref_log_probs", False),
        "--eval_on_start evaluates before it": config.eval_on_start,
        "--profile measures it": config.profile,
        "--deepspeed takes its gradients": config.deepspeed,
        "the labels of all are balanced": config.method == "kto",
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class Ahead:
    """The process that prepares rows, from its start on. Use as a context manager, or call `stop`."""

    def __init__(self, config: Any, kind: GroupKind) -> None:
        """Start the process.

        Args:
            config: settings of a method.
            kind: what the method learns from.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="burnish-ahead-"))
        counts = isinstance(config, CountingSettings)
        names = [field.name for field in fields(CountedAheadSettings if counts else AheadSettings)]
        task = {"kind": kind, "counts": counts, "settings": {name: getattr(config, name) for name in names}}
        task["first_step"] = None
        if obstacle_to_beginning(config) is None:
            order = {"seed": config.seed, "strategy": config.train_sampling_strategy}
            task["first_step"] = {"groups": global_batch_size(config), **order}
        (self.folder / TASK).write_text(json.dumps(task, default=str))
        # Its standard input is the line that it hangs on: the system closes it when this process ends, however it ends.
        # A session of its own keeps a terminal's Ctrl-C for the run, which then ends the process.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def front(self) -> Prepared | None:
        """Wait for the groups of the first step; None where all rows are prepared by then, or the process gives none.

        The report says how many examples the set has; it counts nothing else.
        """
        # Here, for the process is to be started before these are imported.
        from burnish.data.prepare import Prepared
        from burnish.data.report import DataReport
        from burnish.data.store import GroupStore

        facts = self.folder / FRONT_FACTS
        while self.process.poll() is None:
            if facts.is_file():
                told = json.loads(facts.read_text("utf-8"))
                return Prepared(GroupStore.open(self.folder / FRONT), DataReport(**told))
            time.sleep(LOOKS_SECONDS)
        return None

    def wait(self) -> None:
        """Wait for the process to be done; where it broke down, a line says that the run prepares the rows itself.

        Raises:
            BurnishError: what the run itself would have raised over the rows.
        """
        code = self.process.wait()
        fault = self.folder / FAULT
        if fault.is_file():
            told = json.loads(fault.read_text("utf-8"))
            raise getattr(errors, told["kind"], BurnishError)(told["message"])
        if code:
            notice(f"--lazy_tokenise: the process that tokenises ended with code {code}; the run tokenises by itself")

    def stop(self) -> None:
        """End the process, if it has not ended, and remove its folder; further calls do nothing."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        rmtree(self.folder, ignore_errors=True)
