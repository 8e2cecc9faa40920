"""Which torch, torch_npu and CANN belong together: the vendor's table, as data.

Source: COMPATIBILITY.en.md of Ascend/pytorch as of 2026-08-20, and the wheels on PyPI in 2026-10. torch_npu has a
check of its own, whose table ends at CANN 6.3. For torch 2.13 and 2.14 the vendor's table says nothing yet.
"""

from __future__ import annotations

import re

CANN_OF_WHEEL: dict[str, str] = {
    "2.5.1.post1": "8.2",
    "2.6.0.post5": "8.5",
    "2.7.1.post2": "8.5",
    "2.7.1.post4": "9.0",
    "2.7.1.post8": "9.1",
    "2.8.0.post2": "8.5",
    "2.8.0.post4": "9.0",
    "2.9.0": "8.5",
    "2.9.0.post2": "9.0",
    "2.9.0.post6": "9.1",
    "2.10.0.post2": "9.0",
    "2.10.0.post4": "9.1",
    "2.11.0": "9.1",
    "2.12.0": "9.1",
}
"""torch_npu wheel → CANN that it was released for."""

CANN_OF_TORCH: dict[tuple[int, int], tuple[str, str]] = {
    (2, 7): ("8.5", "9.1"),
    (2, 8): ("8.5", "9.0"),
    (2, 9): ("8.5", "9.1"),
    (2, 10): ("9.0", "9.1"),
    (2, 11): ("9.1", "9.1"),
    (2, 12): ("9.1", "9.1"),
}
"""torch → lowest and highest CANN in the table, for wheels that it does not list one by one."""

UNLISTED_FROM = (2, 13)
"""From this torch on the table has no row; its newest CANN is then the least to expect."""
NEWEST_LISTED_CANN = "9.1"
LOWEST_TORCH = (2, 7)
LOWEST_CANN = (8, 0)
"""Ascend's own TRL tutorial asks for CANN 8.0.RC1 at least."""
LOWEST_GLIBC = (2, 28)
"""torch and torch_npu wheels are manylinux_2_28."""


def release(text: str) -> tuple[int, ...]:
    """Read the leading numbers of a version: "2.10.0.post2" → (2, 10, 0), "8.2.RC1" → (8, 2); () if there are none."""
    match = re.match(r"\s*[vV]?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in match.group(1).split(".")) if match else ()


def listed_cann(torch_npu: str) -> tuple[str, str] | None:
    """Lowest and highest CANN that the vendor lists for a torch_npu wheel; None where its table says nothing."""
    if torch_npu in CANN_OF_WHEEL:
        cann = CANN_OF_WHEEL[torch_npu]
        return cann, cann
    major, minor = (*release(torch_npu), 0, 0)[:2]
    return CANN_OF_TORCH.get((major, minor))
