"""Writes the file tree into README.md and README.zh.md: one line a file, from the first line of its docstring.

python tools/make_readme_tree.py            # rewrite the part between the markers
python tools/make_readme_tree.py --check    # exit code 1 where a README is out of date
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh.md")
START, END = "<!-- tree -->", "<!-- /tree -->"
FOLDERS = ("src/burnish", "examples/scripts", "benchmarks", "tools")


def main() -> int:
    """Rewrite or check both files; the exit code."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name in READMES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        fresh = with_tree(text)
        if fresh != text:
            stale.append(name)
            if not check:
                path.write_text(fresh, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'out of date; run python tools/make_readme_tree.py' if check else 'rewritten'}")
    return 1 if check and stale else 0


def with_tree(text: str) -> str:
    """Put the tree between the markers of a README."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n```\n{tree()}\n```\n{END}{after}"


def tree() -> str:
    """The tree as text: folders, then their files with what each is for."""
    lines: list[str] = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py"), key=_files_first):
            depth = len(path.relative_to(ROOT / folder).parts) - 1
            parent = path.parent.relative_to(ROOT).as_posix()
            heading = f"{parent}/"
            if heading not in lines:
                lines.append(heading)
            summary = _summary(path)
            if path.name != "__init__.py" or depth == 0:
                lines.append(f"  {path.name:<22} {summary}")
    return "\n".join(lines)


def _files_first(path: Path) -> tuple[str, str]:
    return (path.parent.as_posix(), path.name)


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
