"""docs/scaling.md is what its tool prints, and the tool's shapes are the models that they are named after."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from burnish.models.estimate import count_parameters

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "0.5B": 494_032_768, "1.5B": 1_543_714_304, "3B": 3_085_938_688, "7B": 7_615_616_512, "14B": 14_770_033_664,
    "32B": 32_763_876_352, "72B": 72_706_203_648,
}  # fmt: skip
"""Parameters of Qwen2.5's models, as their weight files add up to."""


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_file_location("make_scaling_docs", ROOT / "tools" / "make_scaling_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_the_parameters_of_its_model(name: str, tool: Any) -> None:
    assert count_parameters(tool._model(name, False, False)).total == PUBLISHED[name]


@pytest.mark.slow
def test_the_pages_are_what_the_tool_prints(tool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """About 20 s."""
    monkeypatch.setattr(sys, "argv", ["make_scaling_docs.py", "--check"])
    assert tool.main() == 0
