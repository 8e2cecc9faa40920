"""What the documents say is so: their commands run or parse, their links lead somewhere, their tree is the tree."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.cli.arguments import parse_arguments
from burnish.cli.check import TABLE as CHECK_TABLE
from burnish.cli.check import CheckConfig
from burnish.cli.launch import METHODS, read_placement
from burnish.cli.main import COMMANDS
from burnish.cli.methods import TRAINING, config_type_of
from burnish.cli.score import read_words
from jobs import POLICY, write_pairs
from runs import run_burnish

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
READMES = PAGES[:2]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
JSON = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "".join(FENCE.findall(text)).splitlines()
    return [line.strip() for line in blocks if line.strip() and not line.startswith("#")]


def _burnish_commands() -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(REPOSITORY)), line)
        for page in PAGES
        for line in _commands(page)
        if line.startswith("burnish ")
    ]


@pytest.mark.parametrize(("page", "line"), _burnish_commands())
def test_every_command_of_a_document_is_understood(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in PYTHON.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        (tmp_path / "my_losses.py").write_text(block)  # the page's own loss, which its commands name
    for block in JSON.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        (tmp_path / "ds.json").write_text(block)  # DeepSpeed's
    words = shlex.split(line.split("|")[0].split(">")[0], comments=True)[1:]
    assert words[0] in COMMANDS or words[0].startswith("-"), page
    if words[0] == "launch":
        place = next(number for number, word in enumerate(words) if word in METHODS)
        assert read_placement(words[1:place]).num_processes > 1
        words = words[place:]
    if words[0] == "score":
        assert read_words(words[1:])[0].model_name_or_path
    if words[0] == "check":
        assert parse_arguments(["--dataset_name", *words[1:]], CheckConfig, table=CHECK_TABLE).config
    if words[0] in TRAINING and "--config" not in words:
        assert parse_arguments(words[1:], config_type_of(words[0])).config


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
def test_the_readmes_commands_run_in_their_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").symlink_to(POLICY)
    write_pairs(tmp_path / "pairs.jsonl", count=32)
    quick = ["--num_samples", "0", "--max_steps", "2"]
    lora = ["--model_name_or_path", "./my-model", "--dataset_name", "pairs.jsonl", "--use_peft", *quick]
    run_burnish("dpo", *lora, "--output_dir", "runs/lora")
    ran = []
    for line in _commands(page):
        words = shlex.split(line)
        if words[0] != "burnish" or words[1] == "doctor":
            continue
        run_burnish(*words[1:], *(quick if words[1] == "dpo" and "--dry_run" not in words else []))
        ran.append(words[1])
    assert ran == ["dpo", "dpo", "check", "explain", "dpo", "checkpoints", "export", "merge"]


def test_both_readmes_have_the_same_commands_and_as_many_rows() -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in READMES)
    assert FENCE.findall(english) == FENCE.findall(chinese)
    for mark in ("\n## ", "\n| ", "\n```"):
        assert english.count(mark) == chinese.count(mark), mark


def test_make_targets_named_in_the_readmes_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for line in _commands(page):
            if line.startswith("make "):
                assert line.split()[1] in targets, (page, line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("tool", ["make_readme_tree.py", "make_trl_docs.py"])
def test_generated_parts_are_up_to_date(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
