"""Every example parses, and trains the demo model for two steps."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from burnish.cli.arguments import parse_arguments
from burnish.cli.methods import TRAINING, config_type_of
from burnish.demo import demo_paths
from runs import read_metrics, run_burnish

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = sorted((EXAMPLES / "recipes").glob("*.yaml"))
SCRIPTS = sorted((EXAMPLES / "scripts").glob("*.py"))


def _method_of(recipe: Path) -> str:
    """The command that a recipe's own comment gives, with the recipe's own path."""
    found = re.search(r"burnish (\w+) --config (\S+)", recipe.read_text())
    assert found is not None, recipe
    assert found[2] == f"examples/recipes/{recipe.name}"
    return found[1]


def _rows(method: str, folder: Path) -> Path:
    """The demo's preferences; their chosen answers where a method wants completions."""
    pairs = demo_paths().data / "train.jsonl"
    if method != "sft":
        return pairs
    path = folder / "completions.jsonl"
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()[:64]]
    lines = [json.dumps({"messages": row["prompt"] + row["chosen"]}, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _two_steps(method: str, folder: Path) -> list[Any]:
    return [
        *("--model_name_or_path", demo_paths().model, "--dataset_name", _rows(method, folder)),
        *("--max_steps", 2, "--global_batch_size", 4, "--max_train_samples", 48, "--logging_steps", 1),
        *("--num_samples", 0, "--save_strategy", "no", "--output_dir", folder / "run"),
    ]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_runs(recipe: Path, tmp_path: Path) -> None:
    method = _method_of(recipe)
    parsed = parse_arguments(["--config", str(recipe)], config_type_of(method))
    assert parsed.config.model_name_or_path == "Qwen/Qwen2-0.5B-Instruct"
    run_burnish(method, "--config", recipe, *_two_steps(method, tmp_path))
    records = read_metrics(tmp_path / "run")
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_takes_the_flags_of_its_command(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(word) for word in _two_steps(script.stem, tmp_path)]
    monkeypatch.setattr("sys.argv", [str(script), *words])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(script), run_name="__main__")
    assert exit_.value.code == 0
    assert (tmp_path / "run" / "model").is_dir()


def test_every_method_has_a_script() -> None:
    assert {script.stem for script in SCRIPTS} == set(TRAINING)


def test_commands_in_the_scripts_docstrings_parse() -> None:
    for script in SCRIPTS:
        found = re.findall(rf"python examples/scripts/{script.name}(.*)", script.read_text())
        assert found, script
        for words in found:
            assert parse_arguments(words.split(), config_type_of(script.stem)).config
