"""The vendor's version table, and which wheels belong together."""

from __future__ import annotations

import pytest

from burnish.device.doctor.versions import CANN_OF_TORCH, CANN_OF_WHEEL, listed_cann, release
from burnish.device.doctor.wheels import check_listed, check_pair, check_torch_wheel


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2.10.0.post2", (2, 10, 0)),
        ("2.13.0+cpu", (2, 13, 0)),
        ("8.2.RC1", (8, 2)),
        ("v9.1.0-beta.2", (9, 1, 0)),
        ("x", ()),
    ],
)
def test_versions_are_read_by_their_leading_numbers(text: str, numbers: tuple[int, ...]):
    assert release(text) == numbers


def test_every_listed_wheel_lies_in_the_range_of_its_torch():
    for wheel, cann in CANN_OF_WHEEL.items():
        if row := CANN_OF_TORCH.get((release(wheel)[0], release(wheel)[1])):
            assert release(row[0]) <= release(cann) <= release(row[1]), wheel


def test_wheels_that_are_not_listed_one_by_one_have_the_range_of_their_torch():
    assert listed_cann("2.10.0.post6") == ("9.0", "9.1")
    assert listed_cann("2.13.0") is None


@pytest.mark.parametrize(
    ("torch_npu", "cann", "status", "key"),
    [
        ("2.9.0", "8.5.1", "ok", "listed.ok"),
        ("2.9.0.post4", "9.0.0", "ok", "listed.ok"),
        ("2.9.0.post6", "9.0.0", "warning", "listed.older"),
        ("2.12.0", "8.2.RC1", "warning", "listed.older"),
        ("2.9.0", "9.1.0", "warning", "listed.newer"),
        ("2.13.0", "9.1.0", "ok", "listed.not_yet"),
        ("2.14.0", "10.0.0", "ok", "listed.not_yet"),
        ("2.13.0", "8.5.0", "warning", "listed.older"),
        ("2.4.0", "8.0.0", "skipped", "listed.unknown"),
    ],
)
def test_cann_is_held_against_the_table(ascend, torch_npu: str, cann: str, status: str, key: str):
    ascend.packages["torch-npu"] = torch_npu
    ascend.file("/usr/local/Ascend/cann/aarch64-linux/ascend_toolkit_install.info", f"version={cann}\n")
    finding = check_listed(ascend.machine())
    assert (finding.status, finding.key) == (status, key)


def test_the_cure_of_a_mismatch_names_both_ways(ascend):
    ascend.packages["torch-npu"] = "2.10.0.post2"
    cure = check_pair(ascend.machine()).cure("en")
    assert "torch-npu==2.9.0" in cure
    assert "torch 2.10.0" in cure


def test_a_cuda_torch_is_fine_where_no_torch_npu_is(fake):
    fake.torch_build = "CUDA 12.8"
    assert check_torch_wheel(fake.machine()).text("en") == "torch 2.9.0+cpu, CUDA 12.8 build"
