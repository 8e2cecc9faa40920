"""The process of `--lazy_tokenise`: python -m burnish.methods.ahead_worker FOLDER, with the task in a file there."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from shutil import rmtree
from typing import Any

from burnish.batching.sampler import draw_order
from burnish.data.cache import write_whole
from burnish.data.front import prepare_front
from burnish.data.prepare import cache_entry, data_cache_dir, prepare_groups
from burnish.data.rows import RowSource
from burnish.data.store import GroupStore
from burnish.errors import BurnishError
from burnish.methods.ahead import FAULT, FRONT, FRONT_FACTS, TASK, AheadSettings, CountedAheadSettings
from burnish.methods.data import open_rows
from burnish.models.tokenizer import load_tokenizer

LEAVE_SECONDS = 10.0
"""How long the work may take to stop where it stands and to remove what is half written."""


class _Ended(BaseException):
    """The run has ended; no Exception, which a chat template's faults are taken for."""


def main(folder: Path) -> int:
    """Prepare the rows of the task; the exit code."""
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_run, args=(folder,), daemon=True).start()
    try:
        _prepare(json.loads((folder / TASK).read_text("utf-8")), folder)
    except BurnishError as error:
        fault = {"kind": type(error).__name__, "message": str(error)}
        (folder / FAULT).write_text(json.dumps(fault))
        return error.exit_code
    except _Ended:
        rmtree(folder, ignore_errors=True)
        return 1
    return 0


def _prepare(task: dict[str, Any], folder: Path) -> None:
    settings_type = CountedAheadSettings if task["counts"] else AheadSettings
    settings = settings_type(**task["settings"])
    tokenizer = load_tokenizer(settings, settings)
    rows, held_out = open_rows(settings)
    if task["first_step"] is not None:
        _hand_over_front(rows, tokenizer, settings, task, folder)
    for source in (rows, *held_out.values()):
        prepare_groups(source, tokenizer, settings, kind=task["kind"], cache_dir=data_cache_dir(settings))


def _hand_over_front(
    rows: RowSource, tokenizer: Any, settings: AheadSettings, task: dict[str, Any], folder: Path
) -> None:
    """Write the groups of the first step, unless all rows are prepared already or how many there are is not known."""
    kind, first, total = task["kind"], task["first_step"], rows.num_rows
    entry = cache_entry(rows, tokenizer, settings, kind, data_cache_dir(settings))
    if not total or entry.manifest.is_file():
        return
    order = draw_order(total, first["seed"], 0, first["strategy"])
    groups = prepare_front(rows, tokenizer, settings, kind, order=order, wanted=first["groups"])
    if groups:
        GroupStore.from_groups(sorted(groups, key=lambda group: group.number), folder / FRONT)
        write_whole(folder / FRONT_FACTS, json.dumps({"source": rows.name, "examples_read": total}))


def _end_with_run(folder: Path) -> None:
    """Wait for the run to let go of this process's standard input, which happens however it ends."""
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would still hold when the process ends
        continue
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    threading.Event().wait(LEAVE_SECONDS)
    rmtree(folder, ignore_errors=True)
    os._exit(1)


def _leave(*_: object) -> None:
    raise _Ended


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
