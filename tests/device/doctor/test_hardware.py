"""npu-smi's tables in the forms that are known."""

from __future__ import annotations

import pytest

from burnish.device.doctor.hardware import check_memory, check_nodes, check_smi
from burnish.device.doctor.smi import read_smi

A3 = """
+------------------------------------------------------------------------------------------------------------------+
| npu-smi 26.0.rc2                            Version: 26.0.rc2                                                    |
+---------------------------+---------------+----------------------------------------------------------------------+
| NPU   Name                | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip  Phy-ID              | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)           |
+===========================+===============+======================================================================+
| 0     Ascend910           | OK            | 162.6                34                      0    / 0                |
| 0     0                   | 0000:9D:00.0  | 0                    0    / 0                3419 / 65536            |
+------------------------------------------------------------------------------------------------------------------+
| 0     Ascend910           | Warning       | -                    34                      0    / 0                |
| 1     1                   | 0000:9F:00.0  | 0                    0    / 0                2874 / 65536            |
+===========================+===============+======================================================================+
| NPU     Chip              | Process id    | Process name       | Process memory(MB)    | Process id in container |
+===========================+===============+======================================================================+
| 0       1                 | 632268        | python3.1          | 197                   | NA                      |
+===========================+===============+======================================================================+
"""
FIRST_910 = """
| npu-smi 24.1.0                   Version: 24.1.0                                               |
| 0     910ProB             | OK            | 78.0        38                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           2387 / 13553      18   / 32768         |
"""
WITHOUT_HBM = """
| 2     310P3               | OK            | NA           45                1225  / 1225          |
| 0     0                   | 0000:01:00.0  | 0            1704 / 21527                            |
"""


def test_two_dies_a_card_are_counted_by_their_physical_ids():
    report = read_smi(A3)
    assert report.version == "26.0.rc2"
    assert [(chip.index, chip.card, chip.position, chip.health) for chip in report.chips] == [
        (0, 0, 0, "OK"),
        (1, 0, 1, "Warning"),
    ]
    assert [(process.pid, process.mib) for process in report.processes] == [(632268, 197)]


@pytest.mark.parametrize(
    ("text", "name", "memory"), [(FIRST_910, "910ProB", (18, 32768)), (WITHOUT_HBM, "310P3", (1704, 21527))]
)
def test_memory_is_hbm_where_there_is_hbm(text: str, name: str, memory: tuple[int, int]):
    (chip,) = read_smi(text).chips
    assert (chip.name, chip.used_mib, chip.total_mib) == (name, *memory)


def test_no_table_gives_no_chips():
    assert read_smi("bash: npu-smi: Permission denied").chips == ()


def test_an_ill_chip_fails_unless_it_is_left_out(ascend):
    ascend.answer("npu-smi", A3)
    ascend.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0"
    assert check_smi(ascend.machine()).status == "ok"
    ascend.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0,1"
    finding = check_smi(ascend.machine())
    assert finding.status == "failure"
    assert "1 (Ascend910): Warning" in finding.text("en")


def test_a_busy_chip_names_its_processes_and_a_monitor_disturbs_nobody(ascend):
    ascend.environment["ASCEND_RT_VISIBLE_DEVICES"] = "1"
    assert "npu:1 58.5 of 64 GiB [python3.11 (pid 31337) 56012 MiB]" in check_memory(ascend.machine()).text("en")
    ascend.answer("npu-smi", A3)
    assert check_memory(ascend.machine()).text("en") == "HBM free: 61 GiB (used by driver and HCCL included)"


def test_npu_smi_is_found_off_the_path(ascend):
    ascend.answers["/usr/local/sbin/npu-smi"] = ascend.answers.pop("npu-smi")
    assert check_smi(ascend.machine()).status == "ok"


def test_npu_smis_error_is_explained(ascend):
    ascend.answer("npu-smi", "dcmi module initialize failed. ret is -8005", code=1)
    finding = check_smi(ascend.machine())
    assert "held by another container" in finding.text("en")
    assert "/dev/davinci_manager" in finding.cure("en")


def test_nodes_are_listed_in_the_order_of_their_numbers(ascend):
    for number in range(2, 12):
        ascend.file(f"/dev/davinci{number}")
    assert check_nodes(ascend.machine()).text("en") == "12 NPU node(s), davinci0 … davinci11"
