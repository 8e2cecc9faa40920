"""Where records go: standard output, metrics.jsonl, callbacks and trackers, all the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from burnish.console import say
from burnish.engine.callbacks import Callbacks
from burnish.engine.records import format_record
from burnish.engine.run_dir import RunDir

RecordKind = Literal["train", "eval", "summary"]


class Recorder:
    """Writes each record everywhere once."""

    def __init__(self, *, run_dir: RunDir | None, callbacks: Callbacks, accelerator: Any) -> None:
        self.run_dir = run_dir
        self.callbacks = callbacks
        self.accelerator = accelerator

    def write(self, record: Mapping[str, float], *, kind: RecordKind, step: int) -> None:
        """Print a record rounded to six digits, and keep it unrounded with its step and kind."""
        if self.accelerator.is_main_process:
            say(format_record(record))
            if self.run_dir is not None:
                self.run_dir.append_metrics({"step": step, "kind": kind, **record})
        self.accelerator.log({f"{_prefix(kind)}{key}": value for key, value in record.items()}, step=step)
        state = self.callbacks.state
        state.log_history.append(dict(record, step=step))
        self.callbacks.call("on_log", logs=dict(record))

    def note(self, record: Mapping[str, Any], *, kind: str, step: int) -> None:
        """Keep a record of another shape (words, lists) in metrics.jsonl; the caller tells the user."""
        if self.accelerator.is_main_process and self.run_dir is not None:
            self.run_dir.append_metrics({"step": step, "kind": kind, **record})


def _prefix(kind: RecordKind) -> str:
    return "train/" if kind == "train" else ""
