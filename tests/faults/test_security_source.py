"""What the source itself promises: nothing of ours unpickles, evaluates or runs what a file says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "burnish"
FILES = sorted(SOURCE.rglob("*.py"))
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
EVALUATES = {"eval", "exec", "compile"}
UNSAFE_CALLS = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "os.system", "os.popen"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def find_faults(text: str) -> list[str]:
    """What a source file does that no file from a stranger may reach."""
    tree = ast.parse(text)
    faults: list[str] = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        faults += [f"imports {name}" for name in names if name.split(".")[0] in PICKLES]
    for name, call in calls(tree):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        constant = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
        if name in EVALUATES or name in UNSAFE_CALLS:
            faults.append(name)
        if name == "torch.load" and constant.get("weights_only") is not True:
            faults.append("torch.load without weights_only=True")
        if constant.get("allow_pickle") or constant.get("shell") or constant.get("trust_remote_code"):
            faults.append(f"{name} with {ast.unparse(call)[:80]}")
    return faults


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)", "eval(text)",
        "np.load(f, allow_pickle=True)", "yaml.load(text)", "run(words, shell=True)", "load(m, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(text: str) -> None:
    assert find_faults(text)


def test_nothing_of_ours_unpickles_evaluates_or_trusts_by_itself() -> None:
    assert len(FILES) > 150
    assert {str(path): faults for path in FILES if (faults := find_faults(path.read_text(encoding="utf-8")))} == {}
