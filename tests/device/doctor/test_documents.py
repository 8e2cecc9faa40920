"""The two documents say the same, and nothing that the code does not know."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from burnish.cli.arguments import parse_arguments
from burnish.cli.doctor import run
from burnish.cli.launch import read_placement
from burnish.device.doctor.explain import explain
from burnish.device.doctor.faults import FAULTS
from burnish.device.doctor.versions import CANN_OF_TORCH, CANN_OF_WHEEL, LOWEST_TORCH, release
from burnish.methods.dpo import DPOConfig

REPOSITORY = Path(__file__).parents[3]
ENGLISH, CHINESE = ((REPOSITORY / f"docs/{language}/ascend.md").read_text() for language in ("en", "zh"))
BOTH = pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["en", "zh"])


def blocks(text: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tables(text: str) -> list[list[list[str]]]:
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[row.strip("|").split("|") for row in table.splitlines()[2:]] for table in found]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_both_languages_have_the_same_commands_sections_and_rows():
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert len(re.findall(r"^#+ ", ENGLISH, re.MULTILINE)) == len(re.findall(r"^#+ ", CHINESE, re.MULTILINE))
    shapes = [[(len(table), [codes(row[0]) for row in table]) for table in tables(text)] for text in (ENGLISH, CHINESE)]
    assert shapes[0] == shapes[1]
    assert len(re.findall(r"^- ", ENGLISH, re.MULTILINE)) == len(re.findall(r"^- ", CHINESE, re.MULTILINE))


@BOTH
def test_the_version_table_is_the_codes(text: str):
    rows = tables(text)[0]
    wheels = {wheel: cann for row in rows for wheel, cann in re.findall(r"([\d.]+(?:post\d+)?) \(([\d.]+)\)", row[1])}
    assert wheels == {wheel: cann for wheel, cann in CANN_OF_WHEEL.items() if release(wheel)[:2] >= LOWEST_TORCH}
    for row in rows:
        numbers = re.findall(r"\d+\.\d+", row[2])
        major, minor = release(row[0])[:2]
        listed = CANN_OF_TORCH.get((major, minor))
        assert numbers == list(dict.fromkeys(listed or ()))


@BOTH
def test_every_text_of_the_error_table_is_known_and_every_fault_of_the_stack_is_in_it(text: str):
    found = {explain([code])[0].name for row in tables(text)[3] for code in codes(row[0])}
    unlisted = {"runtime_507", "collective_code", "operator_code", "stale_gradients", "cpu_fallback"}
    unlisted |= {"cuda_not_built", "cuda_driver_old"}
    assert {fault.name for fault in FAULTS} - found == unlisted


@BOTH
def test_every_command_of_burnish_is_one(text: str, capsys: pytest.CaptureFixture[str]):
    lines = [line for block in blocks(text) for line in block.splitlines() if "burnish " in line]
    assert len(lines) == 7
    for line in lines:
        words = shlex.split(line.split(" | ")[-1])
        if words[1] == "launch":
            place = words.index("dpo")
            assert read_placement(words[2:place]).num_processes > 1
            words = ["burnish", *words[place:]]
        if words[:2] == ["burnish", "dpo"]:
            assert parse_arguments(words[2:], DPOConfig).config.model_name_or_path == "Qwen/Qwen2-0.5B-Instruct"
        elif "--explain" in words and words[-1] != "-":
            assert run(words[2:]) == 0
            assert "507033" in capsys.readouterr().out
        else:
            assert set(words[2:]) <= {"--smoke", "--explain", "-"}


def test_the_requirements_pin_the_pair():
    run_file, ascend = (Path(REPOSITORY / "requirements" / name).read_text() for name in ("run.txt", "ascend.txt"))
    torch = re.search(r"^torch==(\S+)", run_file, re.MULTILINE)
    torch_npu = re.search(r"^torch-npu==(\S+)", ascend, re.MULTILINE)
    assert torch is not None
    assert torch_npu is not None
    assert torch.group(1) == torch_npu.group(1)
    assert "-r run.txt" in ascend


def _resolve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--retries", "0", "--timeout", "5"]
    return subprocess.run(
        [*command, "--report", "-", *words], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )


@pytest.mark.slow  # 5 s: pip asks its index
def test_the_requirements_can_be_had_together_and_leave_torch_alone():
    if _resolve("--no-deps", "--ignore-installed", "attrs").returncode:
        pytest.skip("pip reaches no index here")
    done = _resolve("-r", "requirements/ascend.txt")
    assert done.returncode == 0, done.stderr
    chosen = {one["metadata"]["name"]: one["metadata"]["version"] for one in json.loads(done.stdout)["install"]}
    assert chosen["torch_npu"] == version("torch").partition("+")[0]
    assert "torch" not in chosen, "the torch that is here fits"
