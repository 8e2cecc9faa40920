"""Small tokenizers and a short way to prepare rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from burnish.data.prepare import Prepared, prepare_groups
from burnish.data.settings import DataSettings
from burnish.data.sources import load_rows, rows_of

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_ids"


@pytest.fixture(scope="session")
def chatml() -> Any:
    """A small tokenizer whose template writes <|im_start|>role … <|im_end|>, with a default system turn."""
    return AutoTokenizer.from_pretrained(GOLDEN / "chatml")


@pytest.fixture(scope="session")
def headers() -> Any:
    """A small tokenizer whose template writes headers, trims contents and begins with a BOS token."""
    return AutoTokenizer.from_pretrained(GOLDEN / "headers")


Prepare = Callable[..., Prepared]


@pytest.fixture
def prepare(chatml: Any, tmp_path: Path) -> Prepare:
    """Prepare a list of rows, or a path, with settings by name."""

    def run(rows: Any, tokenizer: Any = None, *, kind: Any = "preference", **settings: Any) -> Prepared:
        rejected = tmp_path / "rejected_rows.jsonl"
        options: dict[str, Any] = {"kind": kind, "cache_dir": tmp_path / "cache", "rejected_path": rejected}
        if isinstance(rows, Path | str):
            chosen = DataSettings(dataset_name=str(rows), **settings)
            return prepare_groups(load_rows(chosen), tokenizer or chatml, chosen, **options)
        return prepare_groups(rows_of(rows), tokenizer or chatml, DataSettings(**settings), **options)

    return run


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Write objects, texts or bytes as the lines of a file."""

    def write(*lines: Any, name: str = "rows.jsonl", end: bytes = b"\n") -> Path:
        path = tmp_path / name
        encoded = [
            line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode()
            for line in lines
        ]
        path.write_bytes(b"".join(line + end for line in encoded))
        return path

    return write
