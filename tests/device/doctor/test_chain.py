"""From a healthy machine, break one link at a time: the doctor names that link."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from burnish.device.doctor.chain import CHAIN, examine
from burnish.device.doctor.command import diagnose
from burnish.device.doctor.findings import Finding

Break = Callable[[Any], Any]

UNDEFINED = "ImportError: /x/torch_npu/lib/libtorch_npu.so: undefined symbol: _ZNK4c10d7Backend15incref_pyobjectEv"
NO_CANN = (
    "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension auto-loading with "
    "TORCH_DEVICE_BACKEND_AUTOLOAD=0.\n"
    "ImportError: libhccl.so: cannot open shared object file: No such file or directory"
)


def findings(fake: Any, *, smoke: bool = False) -> dict[str, Finding]:
    return {link.name: finding for link, finding in examine(fake.machine(), smoke=smoke)}


def report(fake: Any, *, smoke: bool = False, language: Any = "en") -> tuple[int, str]:
    out = io.StringIO()
    code = diagnose(fake.machine(), language=language, smoke=smoke, as_json=False, out=out)
    return code, out.getvalue()


def test_a_healthy_ascend_machine_passes_every_check(ascend):
    found = findings(ascend, smoke=True)
    assert {name: finding.status for name, finding in found.items() if finding.status != "ok"} == {"gpu": "skipped"}
    code, text = report(ascend, smoke=True)
    assert code == 0
    assert "Training would use npu:0 (Ascend910B3, 64 GiB), bf16." in text
    assert text.rstrip().endswith("Nothing to cure. Next: burnish dpo (the embedded demo).")


BROKEN: list[tuple[str, str, Break]] = [
    ("nodes", "nodes.none", lambda m: [m.remove("/dev/davinci0"), m.remove("/dev/davinci1")]),
    (
        "nodes",
        "nodes.none_in_container",
        lambda m: [m.remove("/dev/davinci0"), m.remove("/dev/davinci1"), m.file("/.dockerenv")],
    ),
    ("nodes", "nodes.no_managers", lambda m: m.remove("/dev/hisi_hdc")),
    ("nodes", "nodes.denied", lambda m: m.denied.add("devmm_svm")),
    ("npu-smi", "smi.timeout", lambda m: m.answer("npu-smi", code=-9, problem="timeout")),
    (
        "npu-smi",
        "smi.fails",
        lambda m: m.answer(
            "npu-smi", "dcmi model initialized failed, because the device is used. ret is -8020", code=1
        ),
    ),
    (
        "npu-smi",
        "smi.unhealthy",
        lambda m: m.answer("npu-smi", m.answers["npu-smi"].output.replace("| OK   ", "| Alarm", 1)),
    ),
    ("cann", "cann.home_missing", lambda m: m.environment.update(ASCEND_HOME_PATH="/opt/gone")),
    (
        "cann",
        "cann.not_sourced",
        lambda m: [m.environment.pop("ASCEND_HOME_PATH"), m.environment.pop("ASCEND_TOOLKIT_HOME")],
    ),
    (
        "cann",
        "cann.old",
        lambda m: m.file("/usr/local/Ascend/cann/aarch64-linux/ascend_toolkit_install.info", "version=7.0.1\n"),
    ),
    ("cann-python", "deps.required", lambda m: m.packages.pop("numpy")),
    ("torch", "wheel.missing", lambda m: m.packages.pop("torch")),
    ("torch", "wheel.two_accelerators", lambda m: setattr(m, "torch_build", "CUDA 12.8")),
    ("torch", "wheel.old", lambda m: m.packages.update({"torch": "2.5.1", "torch-npu": "2.5.1"})),
    ("pair", "pair.none", lambda m: m.packages.pop("torch-npu")),
    ("pair", "pair.mismatch", lambda m: m.packages.update({"torch-npu": "2.10.0.post2"})),
    ("import", "load.fails", lambda m: m.loads({"stage": "torch", "error": NO_CANN})),
    ("import", "load.crash", lambda m: m.loads(code=-11)),
    ("import", "load.timeout", lambda m: m.loads(code=-9, problem="timeout")),
    ("devices", "count.none", lambda m: m.sees("npu", 0)),
    ("devices", "count.fewer", lambda m: m.environment.update(ASCEND_RT_VISIBLE_DEVICES="0,1,2")),
    ("variables", "variables.two_allocators", lambda m: m.environment.update(TWO_ALLOCATORS)),
    ("glibc", "libc.old", lambda m: setattr(m, "libc", ("glibc", "2.17"))),
    ("python", "python.old", lambda m: setattr(m, "python", [3, 10, 4])),
    ("python", "packages.unread", lambda m: m.answer("packages.py", error="no python\n", code=1)),
]
TWO_ALLOCATORS = {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True", "PYTORCH_ALLOC_CONF": "x:1"}


@pytest.mark.parametrize(("name", "key", "damage"), BROKEN, ids=[key for _, key, _ in BROKEN])
def test_the_broken_link_is_the_first_failure(ascend, name: str, key: str, damage: Break):
    damage(ascend)
    failed = [(link, finding.key) for link, finding in findings(ascend).items() if finding.worst == "failure"]
    assert failed[0] == (name, key)
    code, text = report(ascend)
    assert code == 2
    label = next(link.label.english for link in CHAIN if link.name == name)
    assert text.rstrip().splitlines()[-1].startswith(f"Do this first ({label}): ")


WARNED: list[tuple[str, str, Break]] = [
    ("npu-smi", "smi.missing", lambda m: m.answers.pop("npu-smi")),
    ("npu-smi", "smi.unread", lambda m: m.answer("npu-smi", "a table of next year")),
    ("memory", "memory.busy", lambda m: m.environment.pop("ASCEND_RT_VISIBLE_DEVICES")),
    ("driver", "driver.unknown", lambda m: m.remove("/usr/local/Ascend/driver/version.info")),
    ("cann", "cann.half_loaded", lambda m: m.environment.update(LD_LIBRARY_PATH="/usr/lib")),
    (
        "kernels",
        "kernels.absent",
        lambda m: m.environment.update(
            ASCEND_HOME_PATH=m.file("/opt/c/lib64/x").file("/opt/c/version.cfg") and "/opt/c"
        ),
    ),
    ("cann-python", "deps.missing", lambda m: m.packages.pop("decorator")),
    ("pair", "pair.patch", lambda m: m.packages.update({"torch": "2.9.1+cpu"})),
    ("table", "listed.older", lambda m: m.packages.update({"torch-npu": "2.9.0.post6"})),
    ("variables", "variables.blocking", lambda m: m.environment.update(ASCEND_LAUNCH_BLOCKING="1")),
    ("glibc", "libc.other", lambda m: setattr(m, "libc", ("", ""))),
]


@pytest.mark.parametrize(("name", "key", "damage"), WARNED, ids=[key for _, key, _ in WARNED])
def test_what_only_hinders_is_a_warning_and_exits_0(ascend, name: str, key: str, damage: Break):
    damage(ascend)
    found = findings(ascend)
    assert (found[name].status, found[name].key) == ("warning", key)
    assert report(ascend)[0] == 0


def test_an_old_kernel_is_explained_and_nothing_to_cure(ascend):
    ascend.kernel = "4.19.90-2211.5.0.0178.22.oe1.aarch64"
    finding = findings(ascend)["kernel"]
    assert finding.status == "ok"
    assert "Detected kernel version" in finding.text("en")


def test_a_machine_without_accelerator_skips_their_checks_with_a_reason(fake):
    found = findings(fake)
    assert {name for name, finding in found.items() if finding.status == "ok"} == {
        *("python", "torch", "import", "devices", "variables", "glibc", "kernel")
    }
    code, text = report(fake)
    assert code == 0
    assert "no sign of an Ascend NPU" in text
    assert "Training would use cpu (aarch64, 8 threads), float32." in text


def test_device_npu_checks_even_where_nothing_hints_at_one(fake):
    fake.wanted = "npu"
    found = findings(fake)
    assert found["nodes"].key == "nodes.none"
    assert found["cann"].key == "cann.absent"
    assert found["pair"].key == "pair.none"
    assert "Until that is cured, training would use the CPU." in report(fake)[1]


def test_device_cpu_skips_a_broken_npu(ascend):
    ascend.wanted = "cpu"
    ascend.remove("/dev/davinci0")
    assert findings(ascend)["nodes"].key == "skip.other_device"


def test_a_bare_card_without_any_driver_is_seen_on_the_bus(fake):
    fake.file("/sys/bus/pci/devices/0000:c1:00.0/vendor", "0x19e5\n")
    fake.file("/sys/bus/pci/devices/0000:c1:00.0/class", "0x120000\n")
    fake.file("/sys/bus/pci/devices/0000:c2:00.0/vendor", "0x19e5\n")
    fake.file("/sys/bus/pci/devices/0000:c2:00.0/class", "0x020000\n")  # the vendor's network card
    finding = findings(fake)["nodes"]
    assert finding.key == "nodes.none_but_card"
    assert finding.values["cards"] == 1


def test_a_cuda_machine_passes(fake):
    fake.file("/dev/nvidia0")
    fake.torch_build = "CUDA 12.8"
    fake.answer("nvidia-smi", "NVIDIA H20, 97871, 570.86.15\nNVIDIA H20, 97871, 570.86.15\n")
    fake.sees("cuda", 2, names=["NVIDIA H20"] * 2, total_bytes=96 * 2**30)
    found = findings(fake)
    assert "failure" not in {finding.worst for finding in found.values()}
    assert found["gpu"].text("en") == "2 x NVIDIA H20 96 GiB; driver 570.86.15"
    assert "Training would use cuda:0 (NVIDIA H20, 96 GiB), bf16." in report(fake)[1]


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        ("gpu.missing", lambda m: m.answers.pop("nvidia-smi")),
        ("gpu.fails", lambda m: m.answer("nvidia-smi", "Failed to initialize NVML: Driver/library mismatch", code=18)),
        ("gpu.timeout", lambda m: m.answer("nvidia-smi", code=-9, problem="timeout")),
        ("wheel.cpu_on_gpu", lambda m: setattr(m, "torch_build", "CPU")),
        ("count.none_cuda", lambda m: m.sees("cuda", 0)),
        ("count.hidden", lambda m: [m.sees("cuda", 0), m.environment.update(CUDA_VISIBLE_DEVICES="")]),
    ],
)
def test_what_is_wrong_with_a_cuda_machine_is_named(fake, key: str, damage: Break):
    fake.file("/dev/nvidia0")
    fake.torch_build = "CUDA 12.8"
    fake.answer("nvidia-smi", "NVIDIA H20, 97871, 570.86.15\n")
    fake.sees("cuda", 1)
    damage(fake)
    assert key in {finding.key for finding in findings(fake).values()}


def test_torch_is_loaded_once_and_only_without_smoke_nothing_is_computed(ascend):
    findings(ascend)
    scripts = [word.rsplit("/", 1)[-1] for command in ascend.asked for word in command if word.endswith(".py")]
    assert sorted(scripts) == ["load.py", "packages.py"]


def test_two_processes_use_the_cards_only_where_there_are_two(ascend):
    findings(ascend, smoke=True)
    assert ascend.asked[-1][-2:] == ["gloo", "cpu"]
    ascend.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0,1"
    ascend.sees("npu", 2)
    findings(ascend, smoke=True)
    assert ascend.asked[-1][-2:] == ["hccl", "npu"]
