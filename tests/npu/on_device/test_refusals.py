"""The simulated card refuses what a real one does: without this, a run that passes here would prove less."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from npu.simulator.hook import is_simulated

NPU = torch.device("npu")
pytestmark = pytest.mark.skipif(not is_simulated(), reason="what a real card refuses depends on the card")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: torch.ones(2, device=NPU) + torch.ones(2), "two devices"),
        (lambda: torch.ones(2, 2, device=NPU) @ torch.ones(2, 2), "two devices"),
        (lambda: torch.ones(2, device=NPU).index_select(0, torch.tensor([0])), "two devices"),
        (lambda: torch.ones(2, device=NPU, dtype=torch.float64), "DT_DOUBLE"),
        (lambda: torch.ones(2, device=NPU).double(), "DT_DOUBLE"),
        (lambda: torch.ones(2, 2, device=NPU, dtype=torch.bfloat16).logsumexp(1), "DT_BFLOAT16"),
        (lambda: torch.ones(2, 2, device=NPU, dtype=torch.bfloat16).cumsum(1), "DT_BFLOAT16"),
        (lambda: torch.linalg.householder_product(torch.ones(2, 2, device=NPU), torch.ones(2, device=NPU)), "fallback"),
    ],
)
def test_refused(call: Callable[[], torch.Tensor], words: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match=words):
        call()


def test_a_number_from_the_host_may_meet_the_device() -> None:
    assert (torch.ones(2, device=NPU) + torch.tensor(2.0)).cpu().tolist() == [3.0, 3.0]
