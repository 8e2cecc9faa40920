"""From settings to a session, whichever of its rows are there first."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

from burnish.data.prepare import GroupKind
from burnish.engine.method import Method
from burnish.methods.first_step import FirstStep
from burnish.methods.opening import Inputs, load_start, open_run
from burnish.methods.session import Session, assemble_session


def build_session(config: Any, inputs: Inputs, method: Method, kind: GroupKind, run_path: Path | None) -> Session:
    """Build all parts of a run; with --lazy_tokenise, the first step may be begun before all rows are there.

    Raises:
        ConfigError, DataError, ModelError: a setting, a row or a model that no run can be made of.
    """
    first = FirstStep(config, inputs, method)
    opened = open_run(config, inputs, method, kind, run_path, begin=first.begin)
    session = first.complete(opened)
    if session is not None:
        return session
    if first.has_used_start:
        opened.accelerator.free_memory()
        gc.collect()  # layers with forwards of their own hold themselves
        load = partial(method.load_policy, config, pad_id=opened.tokenizer.pad_token_id)
        opened.start, opened.fingerprints = load_start(config, inputs, load)
    return assemble_session(config, inputs, method, opened)
