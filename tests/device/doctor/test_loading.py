"""What a process says that imports torch, recorded from the real torch-npu wheel, and from a machine without CANN."""

from __future__ import annotations

import pytest

from burnish.device.doctor.loading import AUTOLOAD, check_count, check_import, deepest, read_stages

NO_CANN = "ImportError: libhccl.so: cannot open shared object file: No such file or directory"
NOT_LOADED = (
    "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension auto-loading with "
    f"TORCH_DEVICE_BACKEND_AUTOLOAD=0.\n{NO_CANN}"
)
TWO = (
    "RuntimeError: Two accelerators cannot be used at the same time in PyTorch: npu and cuda. You can install the cpu "
    "version of PyTorch to use your npu device, or use the cuda device with 'export TORCH_DEVICE_BACKEND_AUTOLOAD=0'.\n"
    "[ERROR] 2026-11-02-09:00:00 (PID:7, Device:-1, RankID:-1) ERR00007 PTA feature not supported"
)
MISMATCH = "ImportError: /v/torch_npu/lib/libtorch_npu.so: undefined symbol: _ZNK4c10d7Backend15incref_pyobjectEv"


@pytest.mark.parametrize(
    ("stage", "error", "said", "cure"),
    [
        ("torch", NOT_LOADED, "libhccl.so", "set_env.sh"),
        ("torch_npu", NO_CANN, "libhccl.so", "set_env.sh"),
        ("torch_npu", MISMATCH, "different releases", "requirements/ascend.txt"),
        ("torch", TWO, "needs the CPU build", "whl/cpu"),
        ("torch", "ValueError: of another kind", "not a text that burnish knows", "plog"),
    ],
)
def test_a_failed_import_is_explained(ascend, stage: str, error: str, said: str, cure: str):
    ascend.loads({"stage": stage, "error": error})
    finding = check_import(ascend.machine())
    assert finding.status == "failure"
    assert said in finding.text("en")
    assert cure in finding.cure("en")
    assert finding.text("en").startswith(f"import {stage}: ")


def test_the_deepest_cause_is_shown_without_the_vendors_stamp():
    assert deepest(NOT_LOADED) == NO_CANN
    assert deepest(TWO).startswith("RuntimeError: Two accelerators cannot be used at the same time")
    advised = "RuntimeError: error code is 507033\n[ERROR] 2026 ERR00100\n[Error]: No device.\n   Solution: try again"
    assert deepest(advised) == "RuntimeError: error code is 507033"


def test_autoload_switched_off_is_told_and_no_fault(ascend):
    ascend.environment[AUTOLOAD] = "0"
    finding = check_import(ascend.machine())
    assert (finding.status, finding.key) == ("ok", "load.ok_no_autoload")


def test_a_crash_keeps_its_signal(ascend):
    ascend.loads({"stage": "torch", "threads": 1}, code=-11)
    assert check_import(ascend.machine()).values["how"] == "SIGSEGV"


def test_what_other_software_prints_between_is_passed_over():
    lines = [
        'burnish-probe {"stage": "torch"}',
        "[W] noise",
        "burnish-probe {x",
        '[x]burnish-probe {"stage": "npu", "count": 2}',
    ]
    assert read_stages("\n".join(lines)) == {"torch": {}, "npu": {"count": 2}}


def test_a_driver_error_while_counting_is_explained(ascend):
    ascend.loads({"stage": "torch"}, {"stage": "loaded"}, {"stage": "npu", "count": 0, "error": "error code is 507033"})
    finding = check_count(ascend.machine())
    assert finding.key == "count.fails"
    assert "Upgrade driver and firmware" in finding.cure("en")


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_devices_are_named_as_such(ascend, value: str):
    ascend.sees("npu", 0)
    ascend.environment["ASCEND_RT_VISIBLE_DEVICES"] = value
    assert check_count(ascend.machine()).key == "count.hidden"


def test_without_torch_nothing_is_loaded(fake):
    fake.packages.pop("torch")
    assert check_import(fake.machine()).status == "skipped"
    assert check_count(fake.machine()).status == "skipped"
    assert not any("load.py" in word for command in fake.asked for word in command)
