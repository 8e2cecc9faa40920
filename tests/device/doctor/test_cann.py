"""CANN is found where installers of any year put it."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnish.device.doctor.cann import cann_version, check_cann, check_kernels, find_cann, kernels_of


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("x86_64-linux/ascend_toolkit_install.info", "package_name=t\nversion=8.2.RC1\n", "8.2.RC1"),
        ("ascend_nnae_install.info", "version=8.0.0\n", "8.0.0"),
        (
            "version.cfg",
            "# v\nruntime_running_version=[7.7.0.1:8.1]\ntoolkit_running_version=[7.7.0.1.220:8.3.RC1]\n",
            "8.3.RC1",
        ),
        ("elsewhere", "", ""),
    ],
)
def test_the_version_is_read_from_what_the_installer_leaves(tmp_path: Path, file: str, text: str, version: str):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    home = tmp_path / "latest"
    home.symlink_to(tmp_path)
    assert cann_version(home) == version


def test_the_version_is_read_from_the_folders_name_last(tmp_path: Path):
    (tmp_path / "cann-9.1.0").mkdir()
    (tmp_path / "cann").symlink_to(tmp_path / "cann-9.1.0")
    assert cann_version(tmp_path / "cann") == "9.1.0"


def test_a_users_own_cann_is_found_and_named_from_home(fake):
    fake.wanted = "npu"
    fake.file("/home/lin/Ascend/ascend-toolkit/set_env.sh")
    fake.file("/home/lin/Ascend/ascend-toolkit/latest/version.cfg")
    finding = check_cann(fake.machine())
    assert finding.key == "cann.not_sourced"
    assert finding.cure("en") == "source ~/Ascend/ascend-toolkit/set_env.sh"


def test_the_environments_cann_wins_over_the_disks(ascend):
    ascend.file("/opt/own/ascend_toolkit_install.info", "version=9.0.0\n")
    ascend.environment["ASCEND_HOME_PATH"] = "/opt/own"
    cann = find_cann(ascend.machine())
    assert cann is not None
    assert (cann.version, cann.loaded) == ("9.0.0", True)
    assert check_cann(ascend.machine()).key == "cann.two"


def test_kernels_for_another_chip_are_a_failure(ascend):
    ascend.answer("npu-smi", ascend.answers["npu-smi"].output.replace("910B3  ", "910ProB"))
    finding = check_kernels(ascend.machine())
    assert (finding.status, finding.values["wanted"], finding.values["chip"]) == ("failure", "ascend910", "910ProB")


def test_kernels_of_a_separate_operator_folder_count(ascend):
    kernel = "built-in/op_impl/ai_core/tbe/kernel/ascend910_93/x"
    ascend.file(f"/opt/opp/{kernel}").environment["ASCEND_OPP_PATH"] = "/opt/opp"
    assert check_kernels(ascend.machine()).values["chips"] == ["ascend910_93", "ascend910b"]


@pytest.mark.parametrize(
    ("chip", "folder"),
    [("910B2C", "ascend910b"), ("910PremiumA", "ascend910"), ("Ascend910", ""), ("310P3", "ascend310p")],
)
def test_chips_have_their_operator_folder(chip: str, folder: str):
    assert kernels_of(chip) == folder
