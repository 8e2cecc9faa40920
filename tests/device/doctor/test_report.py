"""The report is aligned, one line a check, plain where no terminal reads it, and names no home folder."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from burnish.device.doctor.command import diagnose, language_of
from burnish.device.doctor.report import padded


class Terminal(io.StringIO):
    encoding = "utf-8"  # pyright: ignore[reportAssignmentType]

    def isatty(self) -> bool:
        return True


def report(fake: Any, out: io.StringIO, language: Any = "en") -> str:
    diagnose(fake.machine(), language=language, smoke=False, as_json=False, out=out)
    return out.getvalue()


def test_without_a_terminal_signs_are_ascii_and_lines_align(ascend):
    ascend.packages.pop("decorator")
    lines = report(ascend, io.StringIO()).splitlines()[2:]
    checks = lines[: lines.index("")]
    assert {line[2:6] for line in checks} == {"ok  ", "warn", "-   ", "    "}
    assert {line[23] for line in checks} == {" "}
    assert all(line[24] != " " for line in checks)
    assert "\033" not in "".join(lines)


def test_a_terminal_gets_signs_and_colours_unless_told_not_to(ascend):
    assert "\033[32m✓\033[0m" in report(ascend, Terminal())
    ascend.environment["NO_COLOR"] = ""
    text = report(ascend, Terminal())
    assert "✓" not in text
    assert "\033" not in text


def test_chinese_labels_take_two_columns_a_character():
    assert padded("驱动固件", 10) == "驱动固件  "
    assert padded("driver", 10) == "driver    "


def test_chinese_reports_end_in_chinese(fake):
    fake.wanted = "npu"
    assert report(fake, io.StringIO(), "zh").rstrip().splitlines()[-1].startswith("请先处理（设备节点）：")


def test_a_cure_is_written_once(ascend):
    ascend.environment |= {"ASCEND_HOME_PATH": "/opt/gone", "ASCEND_LAUNCH_BLOCKING": "1", "CUDA_LAUNCH_BLOCKING": "1"}
    ascend.answer("packages.py", error="broken", code=1)
    text = report(ascend, io.StringIO())
    assert text.count("-> Repair or remake the Python environment.") == 1
    assert "-> as above" in text


def test_json_holds_every_check_and_no_home_folder(ascend):
    home = ascend.root / "home/lin"
    ascend.file("/home/lin/cann/x").environment["ASCEND_HOME_PATH"] = str(home / "cann")[len(str(ascend.root)) :]
    ascend.environment["PYTORCH_NPU_ALLOC_CONF"] = "a:1"
    ascend.loads({"stage": "torch", "error": f"OSError: {home}/lib/x.so: no such file"})
    out = io.StringIO()
    code = diagnose(ascend.machine(), language="en", smoke=True, as_json=True, out=out)
    facts = json.loads(out.getvalue())
    assert code == facts["exit_code"] == 2
    assert {check["check"] for check in facts["checks"]} >= {"nodes", "cann", "import", "optimizer", "kernel"}
    assert {check["status"] for check in facts["checks"]} <= {"ok", "warning", "failure", "skipped"}
    assert str(home) not in out.getvalue()
    assert "~/lib/x.so" in out.getvalue()


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_locale_chooses_the_language(fake, variables: dict[str, str], language: str):
    fake.environment |= variables
    assert language_of(fake.machine()) == language
