"""Keeps transformers and peft from printing: what matters in their reports is checked and said in our own words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from burnish.console import bars_shown

_SILENT = 50  # the standard library's logging.CRITICAL


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence log lines and warnings of transformers and peft inside the block; bars stay on a terminal.

    Loading reports (missing keys, unexpected keys) are among what is silenced: the caller checks them.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(_SILENT)
    if not bars_shown():
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
