"""The options of layers are measured on the same work: recomputing activations changes no loss."""

from __future__ import annotations

import argparse

import pytest

import layer_options
from burnish.demo import demo_paths


def test_recomputed_activations_train_alike() -> None:
    options = argparse.Namespace(model=demo_paths().model, groups=1, threads=1, step_tokens=1)
    plain, recomputed = (layer_options.measure(options, name) for name in ("plain", "recomputed"))
    assert recomputed["losses"] == pytest.approx(plain["losses"], abs=1e-6)
    assert plain["losses"][0] > plain["losses"][-1]
    assert len(plain["seconds"]) == 3
    assert plain["peak_bytes"] > 0
